"""The end: drain on SIGTERM, its deadline, and the access log."""
import ctypes
import os
import re
import signal
import socket
import time

from harness import (CULVERT, SLOW, Listener, Relay, Server, Skip, check, connect, echo, ended,
                     equal, eventually, keep, load, main, path, receive, receive_all, reset, run,
                     saying)
from setups import Daemon, joined


def test_sigterm_when_idle():
    target = Listener(handler=echo)
    for number in (signal.SIGTERM, signal.SIGINT):
        relay = Relay("tcp:127.0.0.1:0", target.where)
        began = time.monotonic()
        relay.p.send_signal(number)
        equal(relay.wait(), 0, f"exit code after signal {number}")
        check(time.monotonic() - began < 5 * SLOW, "at once: nothing was open")


def test_drain_finishes_connections():
    target = Listener(handler=echo)
    relay = Relay("tcp:127.0.0.1:0", target.where)
    client = relay.connect()
    client.sendall(b"x")
    equal(receive(client, 1), b"x", "echo")
    relay.p.send_signal(signal.SIGTERM)

    def refused():
        try:
            connect(relay.where, timeout=1).close()
            return False
        except OSError:
            return True

    eventually(refused, "no more is accepted")
    for i in range(5):
        client.sendall(b"q%d" % i)
        equal(receive(client, 2), b"q%d" % i, "what is open goes on")
    check(relay.p.poll() is None, "runs as long as something is open")
    began = time.monotonic()
    client.close()
    equal(relay.wait(), 0, "exit code")
    check(time.monotonic() - began < 5 * SLOW, "ends with its last connection")
    check(relay.logged("0 connections cut"), f"the log says that none was cut: {relay.err}")


def scrape(control):
    s = connect("unix:" + control)
    s.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    lines = receive_all(s).decode().splitlines()
    s.close()
    return lines


def test_reload_replaces_a_route_in_place():
    """Clients of the old one live on, none is refused, and each route is one series."""
    old, new = Listener(handler=saying("old")), Listener(handler=echo)

    def route(target, **more):
        return {"name": "web", "listen": "tcp:127.0.0.1:0", "to": [target.where], **more}

    def listening():
        return [r["running"] for r in relay.status()]

    relay = Daemon(route(old))
    first = relay.connect()
    equal(receive(first, 3), b"old", "what the old target says")
    relay.reload(route(new))
    second = relay.connect()  # the port was the kernel's to choose, and is the same
    second.sendall(b"new")
    equal(receive(second, 3), b"new", "echo of the new target")
    equal(listening(), [False, True], "the old one is there for its connection alone")
    equal([x for x in scrape(relay.control) if x.startswith("culvert_relay_active{")],
          ['culvert_relay_active{route="web"} 2'], "one series for both")
    first.close()
    eventually(lambda: 'culvert_relay_active{route="web"} 1' in scrape(relay.control), "one is left")
    relay.reload(route(new, retries=1))
    eventually(lambda: listening()[-1], "listens")
    check('culvert_relay_connections_total{route="web"} 2' in scrape(relay.control),
          "what was counted stays counted")
    second.close()
    relay.stop()


def test_drain_has_a_deadline():
    target = Listener()
    relay = Relay("tcp:127.0.0.1:0", target.where, args=["--drain", "1s"])
    pairs = [(relay.connect(), target.accept()) for _ in range(3)]
    relay.p.send_signal(signal.SIGTERM)
    began = time.monotonic()
    equal(relay.wait(), 0, "exit code")
    took = time.monotonic() - began
    check(0.8 < took < 8 * SLOW, f"drained for {took:.1f} s, want 1")
    check(relay.logged(r"\b3 connections"), f"the log says how many were cut: {relay.err}")
    for client, server in pairs:
        # Cut is not ended well: neither side may take it for the end of the stream.
        equal((ended(client), ended(server)), ("reset", "reset"), "how a cut connection ends")


def test_second_signal_ends_the_drain():
    relay, client, server = joined()
    relay.p.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    check(relay.p.poll() is None, "it drains")
    relay.p.send_signal(signal.SIGTERM)
    relay.wait(15)
    ended(client)
    ended(server)
    check(relay.logged(r"\b1 connection"), f"the log says how many were cut: {relay.err}")


def test_unix_listener_leaves_nothing_behind():
    target = Listener(handler=echo)
    name = path("in")
    for _ in range(2):
        relay = Relay("unix:" + name, target.where)
        s = connect("unix:" + name)
        s.sendall(b"x")
        equal(receive(s, 1), b"x", "echo")
        s.close()
        relay.stop()
        check(not os.path.exists(name), "the socket's file is gone")
    # After a crash the file is there, and nobody listens: the next start takes it over.
    relay = Relay("unix:" + name, target.where)
    relay.p.kill()
    relay.wait()
    check(os.path.exists(name), "a crash leaves the file")
    relay = Relay("unix:" + name, target.where)
    relay.stop()


def lines(log, n):
    def probe():
        if not os.path.exists(log):
            return None
        with open(log, encoding="utf-8") as f:
            got = f.read().splitlines()
        return got if len(got) >= n else None

    return eventually(probe, lambda: f"{n} lines in the access log: {probe()}")


def test_access_log_line():
    target = Listener()
    log = path("log")
    relay = Relay("tcp:127.0.0.1:0", target.where, access_log=log)
    client = relay.connect()
    me = client.getsockname()
    server = target.accept()
    client.sendall(bytes(1234))
    client.shutdown(socket.SHUT_WR)
    receive_all(server)
    server.sendall(bytes(567))
    server.close()
    receive_all(client)
    client.close()
    line = lines(log, 1)[0]
    for want in (f"127.0.0.1:{me[1]}", f"127.0.0.1:{target.port}", "bytes_in=1234", "bytes_out=567"):
        check(want in line, f"{want} in {line!r}")
    check(re.search(r"duration\S*[=:]\s*\S+", line) or re.search(r"\d(ms|s)\b", line),
          f"duration in {line!r}")
    check(re.search(r"route=\S+", line), f"route in {line!r}")
    relay.stop()


def test_access_log_says_how_it_ended():
    target = Listener()
    log = path("log")
    relay = Relay("tcp:127.0.0.1:0", target.where, access_log=log, idle_timeout="500ms")
    seen = []
    for number, end in enumerate(("fin", "client reset", "target reset", "idle"), 1):
        client = relay.connect()
        server = target.accept()
        if end == "fin":
            client.close()
            ended(server)
            server.close()
        elif end == "client reset":
            reset(client)
            ended(server)
        elif end == "target reset":
            reset(server)
            ended(client)
        else:
            ended(client)
            ended(server)
        line = lines(log, number)[number - 1]
        # What differs but for numbers, addresses and times is how it ended.
        seen.append(re.sub(r"[0-9.:]+", "", line))
        client.close()
        server.close()
    equal(len(set(seen)), 4, f"four ends, told apart: {seen}")
    relay.stop()


def test_access_log_off_by_default():
    server = Server()
    relay = Relay("tcp:127.0.0.1:0", server.where)
    before = len(relay.err)
    load(relay.where, connections=20, up="1k", down="1k")
    relay.idle_again()
    equal(relay.err[before:], [], "nothing is logged for connections that went well")
    relay.stop()
    server.finish()


def test_access_log_on_stderr():
    server = Server()
    relay = Relay("tcp:127.0.0.1:0", server.where, access_log="stderr")
    load(relay.where, connections=20, up="1k", down="1k")
    eventually(lambda: len(relay.logged(r"bytes_in=1088 ")) == 20, lambda: f"20 lines in {relay.err}")
    relay.stop()
    server.finish()


def test_access_log_is_complete_at_exit():
    target = Listener(handler=echo)
    log = path("log")
    relay = Relay("tcp:127.0.0.1:0", target.where, access_log=log, workers=2)
    n = 200
    for i in range(n):
        s = relay.connect()
        s.sendall(b"x" * (i + 1))
        equal(len(receive(s, i + 1)), i + 1, "echo")
        s.close()
    relay.stop()
    with open(log, encoding="utf-8") as f:
        got = f.read().splitlines()
    equal(len(got), n, "lines")
    equal(sum(int(re.search(r"bytes_in=(\d+)", line)[1]) for line in got), n * (n + 1) // 2,
          "sum of all bytes in")


def journal_of_our_own():
    """A directory of our own in the place of /run, and the journal's socket in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, private, recursive = 0x20000, 1 << 18, 1 << 14
    if (os.geteuid() or libc.unshare(new_namespace) or
            libc.mount(b"none", b"/", None, private | recursive, None) or
            libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, None)):
        raise Skip("no mount namespace is to be had")
    os.makedirs("/run/systemd/journal")
    s = keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    s.bind("/run/systemd/journal/socket")
    s.settimeout(10 * SLOW)
    return s


def fields(datagram):
    """An entry of systemd's Native Journal Protocol whose values have no line ends."""
    text = datagram.decode()
    check(text.endswith("\n") and "\n\n" not in text, f"an entry: {text!r}")
    return dict(line.split("=", 1) for line in text.splitlines())


def test_access_log_in_the_journal():
    """Last: it takes the process into a mount namespace of its own."""
    journal = journal_of_our_own()
    target = Listener("unix:" + path("tar=get\nof_two_lines"), handler=echo)
    relay = Relay("tcp:127.0.0.1:0", target.where, access_log="journal")
    for size in (1, 70_000):
        s = relay.connect()
        s.sendall(b"x" * size)
        equal(len(receive(s, size)), size, "echo")
        host, port = s.getsockname()
        s.close()
        got = fields(journal.recv(65536))
        equal((got["SYSLOG_IDENTIFIER"], got["PRIORITY"]), ("culvert", "6"), "whose it is")
        wanted = {"ROUTE": "1", "CLIENT": f"{host}:{port}", "BYTES_IN": str(size),
                  "BYTES_OUT": str(size), "ATTEMPTS": "1", "END": "done",
                  "TARGET": target.where.replace("\n", "?")}
        for key, value in wanted.items():
            equal(got.get("CULVERT_" + key), value, key)
            check(f"{key.lower()}={value}" in got["MESSAGE"], f"{key} in {got['MESSAGE']}")
        check(got["CULVERT_ENGINE"] in ("copy", "splice", "splice+copy"), f"engine: {got}")
        check(got["CULVERT_DURATION_MS"].isdigit(), f"duration: {got}")

    # A journal that takes nothing holds nothing up: what it does not take is counted.
    n = 0
    while not relay.logged(r"[1-9]\d* entries lost.*journald"):
        s = relay.connect()
        s.sendall(b"x")
        equal(receive(s, 1), b"x", "echo though the journal is full")
        s.close()
        n += 1
        check(n < 20000, "a full journal is told of")
    journal.close()
    os.unlink("/run/systemd/journal/socket")
    began = time.monotonic()
    relay.stop()
    check(time.monotonic() - began < 10 * SLOW, "ends though there is no journal")
    code, said = run(CULVERT, "relay", "tcp:127.0.0.1:0", target.where, "--set",
                     "access_log=journal")
    equal(code, 1, f"no journal: {said}")
    check("/run/systemd/journal/socket" in said and "access_log: file:" in said, said)


main()
