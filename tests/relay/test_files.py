"""Files as sources: regular ones, FIFOs, standard input and devices; once, and in a daemon."""
import os
import re
import socket
import struct
import subprocess
import threading
import time

from harness import (CULVERT, Listener, Relay, check, equal, eventually, main, path, receive,
                     receive_all, reset, run)
from setups import Daemon


def made(size, name="source"):
    """A file of random bytes: its name and them."""
    data = os.urandom(size)
    with open(path(name), "wb") as f:
        f.write(data)
    return path(name), data


class Taker(Listener):
    """A target that keeps what each connection brought, and answers with bytes nobody wants."""

    def __init__(self, endpoint="tcp:127.0.0.1:0", answer=b"unwanted" * 1000, **more):
        self.got = []
        self.answer = answer
        super().__init__(endpoint, handler=self.take, **more)

    def take(self, c):
        if self.answer:
            c.sendall(self.answer)
        got = receive_all(c)
        c.sendall(self.answer)
        c.close()
        self.got.append(got)


def send_once(source, *targets, stdin=None, **settings):
    """`culvert relay file: TO` to its end: exit code, log."""
    argv = [CULVERT, "relay", "file:" + source, ",".join(targets)]
    for key, value in settings.items():
        argv += ["--set", f"{key}={value}"]
    if stdin is None:
        return run(*argv)
    done = subprocess.run(argv, input=stdin, capture_output=True, timeout=50, check=False)
    return done.returncode, done.stderr.decode()


def delivered(source, target, data, what, **more):
    code, said = send_once(source, target.where, **more)
    equal(code, 0, f"{what}: exit code, {said}")
    eventually(lambda: target.got, f"{what}: the target has it all")
    got = target.got.pop()
    check(got == data, f"{what}: {len(got)} bytes of {len(data)}, or others")
    return said


def test_regular_files():
    for where in ("tcp:127.0.0.1:0", "unix:" + path("target")):
        target = Taker(where)
        for size in (0, 1, 65536, 5_000_001):
            name, data = made(size)
            said = delivered(name, target, data, f"{where}, {size} bytes")
            check(f"sendfile={size} " in said and f"bytes_in={size} " in said, f"counted: {said}")
            check(re.search(rf"info: .*{name} was sent .*\b{size} bytes", said), f"told: {said}")


def test_two_files_at_once():
    target = Taker()
    names = [made(3_000_000, f"part{i}") for i in range(2)]
    argv = [CULVERT, "relay"]
    for name, _ in names:
        argv += ["file:" + name, target.where]
    code, said = run(*argv, "--workers", "2")
    equal(code, 0, f"exit code: {said}")
    eventually(lambda: len(target.got) == 2, "both arrived")
    equal(sorted(target.got), sorted(data for _, data in names), "bytes")


def test_standard_input_and_devices():
    target = Taker()
    for size in (0, 1, 3_000_000):
        data = os.urandom(size)
        delivered("/dev/stdin", target, data, f"{size} bytes of standard input", stdin=data)
    delivered("/dev/null", target, b"", "/dev/null")
    for engine, counter in (("copy", "copied"), ("auto", "spliced")):
        data = os.urandom(2_000_000)
        said = delivered("/dev/stdin", target, data, engine, stdin=data, engine=engine)
        check(int(re.search(rf"\b{counter}=(\d+)", said)[1]) > 200_000, f"{counter}: {said}")


def test_a_fifo_once():
    target = Taker()
    name = path("fifo")
    os.mkfifo(name)
    data = os.urandom(1_000_000)
    relay = Relay("file:" + name, target.where)
    with open(name, "wb") as f:
        f.write(data[:10])
        f.flush()
        eventually(lambda: target.accepted == 1, "the target hears of the first byte")
        f.write(data[10:])
    equal(relay.wait(), 0, f"exit code, log {relay.err}")
    check(target.got == [data], "bytes")


def test_a_large_file_costs_no_memory():
    name = path("large")
    size = 1 << 30
    with open(name, "wb") as f:
        f.truncate(size)
    stalled = Listener(rcvbuf=65536)
    relay = Relay("file:" + name, stalled.where)
    before = relay.memory()
    c = stalled.accept()
    check(receive(c, 20_000_000) == bytes(20_000_000), "its beginning")
    check(relay.memory() - before < 4 << 20, f"memory: {relay.memory()}, {before} before")
    relay.quiet(what=": the target takes no more")
    reset(c)
    equal(relay.wait(), 1, "exit code after the target's reset")


def one_error(said):
    lines = [line for line in said.splitlines() if "error: " in line]
    equal(len(lines), 1, f"lines of the error: {said}")
    return lines[0]


def test_what_was_not_delivered_is_exit_1():
    name, _ = made(100_000)
    gone = Listener()
    gone.close()
    code, said = send_once(name, gone.where)
    equal(code, 1, f"nobody listens: {said}")
    check(name in one_error(said) and "refused" in one_error(said), said)

    # The target ends its side first, then does not read: that it ended says nothing.
    target = Listener(rcvbuf=4096)
    relay = Relay("file:" + name, target.where)
    c = target.accept()
    c.shutdown(socket.SHUT_WR)
    time.sleep(0.5)
    check(relay.p.poll() is None, f"waits until it has arrived: {relay.err}")
    reset(c)
    equal(relay.wait(), 1, f"the target reset it: {relay.err}")
    check("reset" in one_error("\n".join(relay.err)), relay.err)

    # Likewise, and then it does.
    relay = Relay("file:" + name, target.where)
    c = target.accept()
    c.shutdown(socket.SHUT_WR)
    equal(len(receive_all(c)), 100_000, "bytes")
    equal(relay.wait(), 0, f"exit code: {relay.err}")

    # All is there, and the target stays.
    relay = Relay("file:" + name, target.where, half_close_timeout="500ms")
    c = target.accept()
    receive(c, 100_000)
    equal(relay.wait(), 1, f"the target stays: {relay.err}")
    check("half_close_timeout" in one_error("\n".join(relay.err)), relay.err)

    # SIGTERM before it is through.
    big, _ = made(30_000_000, "big")
    relay = Relay("file:" + big, target.where, args=["--drain", "100ms"])
    c = target.accept()
    relay.stop(code=1, leak=False)
    check("cut" in one_error("\n".join(relay.err)), relay.err)


def test_the_next_target_gets_it():
    gone, target = Listener(), Taker()
    gone.close()
    name, data = made(10_000)
    code, said = send_once(name, gone.where, target.where + " backup")
    equal(code, 0, f"exit code: {said}")
    equal(target.got, [data], "bytes")
    check("retries=1 " in said, f"counted: {said}")


def test_proxy_header_and_rate():
    name, data = made(200_000)
    for version, header in (("v1", b"PROXY UNKNOWN\r\n"),
                            ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20" + struct.pack(">BH", 0, 0))):
        delivered(name, Taker(), header + data, f"proxy {version}", proxy_send=version)
    began = time.monotonic()
    delivered(name, Taker(), data, "slowly", rate="200k/s")
    check(time.monotonic() - began > 0.7, "the rate holds")


def test_refused_sendfile_is_copied():
    name, data = made(3_000_000)
    for faults in (["sendfile:EINVAL"], ["sendfile:EINVAL:2"]):
        target = Taker()
        relay = Relay("file:" + name, target.where, faults=faults, ready=False)
        equal(relay.wait(), 0, f"{faults}: exit code, {relay.err}")
        check(target.got == [data], f"{faults}: bytes")


def test_a_daemon_sends_a_file_once():
    name, data = made(100_000)
    target, log = Taker(), path("access.log")
    route = {"name": "image", "listen": "file:" + name, "to": [target.where], "access_log": log}
    other = {"name": "other", "listen": "tcp:127.0.0.1:0", "to": [target.where]}
    relay = Daemon(route, other)
    eventually(lambda: target.got == [data], "sent")
    relay.reload(route, {**other, "retries": 1})
    one = relay.status()[0]
    equal((one["listen"], one["connections"], one["bytes_in"], one["sendfile"], one["running"]),
          ("file:" + name, 1, len(data), len(data), True), "status")
    relay.stop()
    equal(target.accepted, 1, "sent once, though another route was changed meanwhile")
    with open(log, encoding="utf-8") as f:
        check(f"client=file:{name} target={target.where} bytes_in={len(data)} " in f.read(),
              "access log")


def test_a_daemon_waits_for_its_target():
    """Booted before its target: nothing of the file is lost, and it is sent when that is up."""
    name, data = made(100_000)
    where = "unix:" + path("target")
    relay = Daemon({"name": "image", "listen": "file:" + name, "to": [where]})
    eventually(lambda: relay.logged("is not sent yet"), lambda: f"told: {relay.err}")
    target = Taker(where)
    eventually(lambda: target.got == [data], "sent")
    relay.stop()
    equal(len(relay.logged("is not sent yet")), 1, "told once")


def test_a_daemon_opens_a_fifo_again():
    name = path("fifo")
    os.mkfifo(name)
    target = Taker()
    route = {"name": "log", "listen": "file:" + name, "to": [target.where]}
    relay = Daemon(route)
    sent = [os.urandom(size) for size in (1, 70_000, 300_000, 0, 5)]
    for i, data in enumerate(sent):
        with open(name, "wb") as f:
            f.write(data)
        eventually(lambda n=i: len(target.got) == n + 1, f"connection {i + 1}")
    equal(target.got, sent, "bytes of each writer")
    relay.quiet(what=": nobody writes")
    equal(relay.status()[0]["connections"], len(sent), "counted")

    # A target that leaves takes nothing from the next writer.
    with open(name, "wb") as f:
        f.write(b"x")
        f.flush()
        eventually(lambda: relay.status()[0]["active"] == 1, "under way")
        # Changed meanwhile: who writes is read to the end by the old one, the rest by the new.
        relay.reload({**route, "retries": 1})
        f.write(b"y" * 100_000)
    eventually(lambda: len(target.got) == len(sent) + 1, "connection of the one who stayed")
    equal(target.got[-1], b"x" + b"y" * 100_000, "all of it on one connection")
    with open(name, "wb") as f:
        f.write(b"new")
    eventually(lambda: target.got[-1] == b"new", "the new route reads")
    relay.stop()


def test_a_fifo_keeps_its_bytes_until_a_target_is_there():
    name, where = path("fifo"), "unix:" + path("target")
    os.mkfifo(name)
    relay = Daemon({"name": "log", "listen": "file:" + name, "to": [where]})
    writer = threading.Thread(target=lambda: open(name, "wb").write(b"z" * 200_000), daemon=True)
    writer.start()
    eventually(lambda: relay.logged("is not sent yet"), lambda: f"told: {relay.err}")
    target = Taker(where)
    eventually(lambda: target.got, "sent", 30)
    equal(target.got, [b"z" * 200_000], "bytes")
    writer.join(5)
    check(not writer.is_alive(), "the writer was never told that nobody reads")
    relay.stop()


def test_bad_input():
    name, _ = made(1)
    to = "tcp:127.0.0.1:9"
    for source, target, code, says in (
            ("/nonexistent/file", to, 1, "/nonexistent/file"),
            (path(""), to, 1, "directory"),
            (name + "?append", to, 2, "append"),
            (name, "udp:127.0.0.1:9", 2, "target 1"),
            (name, "file:/tmp/x?append", 2, "target 1")):
        got, said = send_once(source, target)
        equal(got, code, f"{source} to {target}: {said}")
        check(says in one_error(said), said)
    got, said = send_once(name, to, proxy_accept="yes", proxy_trust="10.0.0.0/8")
    equal(got, 2, f"proxy_accept: {said}")
    check("proxy_accept" in one_error(said), said)


main()
