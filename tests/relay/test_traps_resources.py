"""Traps of what the kernel refuses or runs out of, and of what is kept too long: pipes,
descriptors, memory, calls that block."""
import contextlib
import fcntl
import os
import shutil
import signal
import threading
import time

from harness import (CULVERT, SLOW, Listener, Relay, Server, Skip, check, connect, echo, equal,
                     eventually, keep, load, main, path, receive, reset, try_connection)
from setups import calls_counted
from traps import ENGINES, block, load_in_segments, stalled


class Hog:
    """A process that takes all the pages a user may have in pipes; `size` is what a new pipe of
    that user has then. Forked without exec: the user may not be allowed to run our Python."""

    def __init__(self, uid):
        ours, theirs = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.setresuid(uid, uid, uid)
                os.write(theirs, b"%d\n" % self.take())
                time.sleep(600)
            finally:
                os._exit(0)
        keep(self)
        os.close(theirs)
        with os.fdopen(ours, "rb") as f:
            self.size = int(f.readline() or 0)

    @staticmethod
    def take():
        held = []
        for size in (1 << 20, 1 << 16, 1 << 12):
            try:
                while len(held) < 900:
                    held.append(os.pipe())
                    fcntl.fcntl(held[-1][0], fcntl.F_SETPIPE_SZ, size)
            except OSError:
                pass
        return fcntl.fcntl(os.pipe()[0], fcntl.F_GETPIPE_SZ)

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def test_T9_a_splice_request_is_bounded():
    server = Server()
    stats = path("stats")
    relay = Relay("tcp:127.0.0.1:0", server.where, engine="splice", faults=["splice:none"],
                  stats=stats)
    load(relay.where, up="4M", down="4M")
    relay.stop()
    calls, _, largest = calls_counted(stats)
    check(calls > 0, "splice was called")
    check(largest <= 1 << 30, f"the largest request had {largest} bytes")
    server.finish()


def test_T10_refused_pipes_mean_copy_and_one_line():
    for fault in ("pipe2:EMFILE", "pipe2:ENFILE", "splice:EPERM", "splice:ENOSYS",
                  "fcntl@1=1031:EPERM"):
        server = Server()
        stats = path("stats-" + fault.replace(":", "-"))
        relay = Relay("tcp:127.0.0.1:0", server.where, faults=[fault], stats=stats)
        before = len(relay.err)
        load(relay.where, connections=50, concurrent=10, up="256k", down="256k")
        load(relay.where, connections=1, up="8M", down="8M")
        lines = [line for line in relay.err[before:] if " bytes_in=" not in line]
        check(len(lines) <= 2, f"{fault}: {len(lines)} lines of log: {lines[:5]}")
        check("fcntl" in fault or lines, f"{fault}: what is refused is told")
        relay.stop()
        server.finish()
        if not fault.startswith("splice"):  # the system is not asked for every read
            calls = calls_counted(stats)[0]
            check(0 < calls <= 20, f"{fault}: asked {calls} times in a few seconds")


def test_T10_tiny_pipes():
    """Past pipe-user-pages-soft a user's pipes have two slots: another process of the same user
    has used all pages up."""
    if os.geteuid():
        raise Skip("only root can become a user whose pipes are used up")
    uid = 61000 + os.getpid() % 4000
    size = Hog(uid).size
    if not 0 < size <= 8192:
        raise Skip(f"this user gets pipes of {size} bytes all the same")
    # A copy, for the build may lie where that user can't go.
    binary = path("culvert")
    shutil.copy(CULVERT, binary)
    os.chmod(binary, 0o755)
    for engine in ("splice", "auto"):
        server = Server()
        relay = Relay(uid=uid, command=[binary, "relay", "tcp:127.0.0.1:0", server.where],
                      engine=engine)
        load_in_segments(relay)
        load(relay.where, connections=50, concurrent=50, up="256k", down="256k")
        check(len(relay.err) <= 5, f"{engine}: {len(relay.err)} lines of log: {relay.err}")
        relay.stop()
        server.finish()


def test_T11_only_empty_pipes_come_back():
    """Connections die with bytes in their pipes; those after them must not see any."""
    server = Server()
    for engine in ("splice", "auto"):
        target = Listener(rcvbuf=4096)
        relay = Relay("tcp:127.0.0.1:0", target.where, server.where, engine=engine)
        for turn in range(12):
            # Round robin: one connection in two goes to the target that doesn't read.
            a, b = relay.connect(), relay.connect()
            stuck = target.accept()
            for c in (a, b):
                c.setblocking(False)
                try:
                    while c.send(b"\xee" * 65536):
                        pass
                except OSError:
                    pass
            reset(stuck) if turn % 2 else reset(a)
            for c in (a, b, stuck):
                c.close()
        relay.idle_again()
        target.close()
        load(relay.where, connections=100, concurrent=20, up="300k", down="300k")
        relay.stop()
    server.finish(tolerate=True)


def test_T12_an_idle_connection_holds_no_pipe_and_no_buffer():
    for engine in ENGINES:
        target = Listener(handler=echo)
        relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine)
        data = block(400000)
        held = []

        def bulk(s):
            sender = threading.Thread(target=s.sendall, args=(data,))
            sender.start()
            check(receive(s, len(data)) == data, f"{engine}: echo")
            sender.join()

        for _ in range(20):
            held.append(relay.connect())
            bulk(held[-1])
        pipes, memory = relay.pipes(), relay.memory()
        for _ in range(200):
            held.append(relay.connect())
            bulk(held[-1])
        check(relay.pipes() <= max(pipes, 16),
              f"{engine}: {pipes} pipe descriptors with 20 idle, {relay.pipes()} with 220")
        # The pages of a sanitizer's shadow are not the relay's.
        grown = (relay.memory() - memory) / 200
        check(grown < 8192 or SLOW > 1, f"{engine}: {grown:.0f} bytes an idle connection")
        for s in held:
            s.close()
        relay.stop()


def test_T13_everything_is_non_blocking():
    for engine in ENGINES:
        relay, client, server, _ = stalled(engine)
        seen = {"socket": 0, "pipe": 0}
        for fd, link in relay.links():
            kind = link.split(":")[0]
            if fd <= 2 or kind not in seen:
                continue
            with open(f"/proc/{relay.pid}/fdinfo/{fd}", encoding="ascii") as f:
                flags = int(dict(line.split(":") for line in f if ":" in line)["flags"], 8)
            check(flags & os.O_NONBLOCK, f"{engine}: descriptor {fd} ({link}) would block")
            seen[kind] += 1
        check(seen["socket"] >= 3, f"listener and both sides seen: {seen}")
        check(engine != "splice" or seen["pipe"] >= 2, f"a pipe in use seen: {seen}")
        client.close()
        server.close()
        relay.stop()


def test_T25_out_of_descriptors_neither_spins_nor_sticks():
    target = Listener(handler=echo)
    relay = Relay("tcp:127.0.0.1:0", target.where, limit=64)
    held = [relay.connect() for _ in range(150)]
    answered = 0
    for s in held[:5]:
        s.sendall(b"x")
        answered += receive(s, 1) == b"x"
    check(answered > 0, "those that fit are served")
    relay.quiet(what=": out of descriptors", most=25)
    check(len(relay.err) < 40, f"{len(relay.err)} lines of log")
    for s in held:
        s.close()

    def works():
        try:
            s = relay.connect()
            s.sendall(b"again")
            return receive(s, 5) == b"again"
        except OSError:
            return False

    eventually(works, "it serves again when descriptors are free", 20)
    check(relay.p.poll() is None, "still runs")
    for s in held:
        s.close()


def test_T25_pipes_leave_descriptors_to_connections():
    """As many connections as the limit has room for, each with bytes stuck in it."""
    target = Listener("unix:" + path("stuck"))
    where = "unix:" + path("in")
    relay = Relay(where, target.where, engine="splice", limit=200)
    held = []
    for _ in range(60):
        held.append(connect(where))
        held.append(target.accept())
        held[-2].setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while held[-2].send(bytes(65536)):
                time.sleep(0.001)  # the relay takes it
    pipes = relay.pipes()
    check(0 < pipes <= 50, f"{pipes} descriptors of pipes")
    equal(relay.logged("Too many open files"), [], "log")
    for s in held:
        s.close()
    relay.stop()


def test_T25_faults_of_accept_and_connect_never_spin():
    for fault in ("accept4:EMFILE", "accept4:ENFILE", "accept4:ENOBUFS", "accept4:ENOMEM"):
        target = Listener(handler=echo)
        relay = Relay("tcp:127.0.0.1:0", target.where, faults=[fault])
        s = relay.connect()
        relay.quiet(what=f": {fault}", most=25)
        check(len(relay.err) < 40, f"{fault}: {len(relay.err)} lines of log")
        s.close()
        relay.stop()
    target = Listener(handler=echo)
    relay = Relay("tcp:127.0.0.1:0", target.where, faults=["connect:EADDRNOTAVAIL"])
    for _ in range(20):
        try_connection(relay.where)
    relay.quiet(what=": no local ports", most=25)
    relay.stop()


def test_T25_accept_recovers():
    for fault in ("accept4:EMFILE:1:3", "accept4:ECONNABORTED:1:3", "accept4:EINTR:1:3"):
        target = Listener(handler=echo)
        relay = Relay("tcp:127.0.0.1:0", target.where, faults=[fault])
        for _ in range(3):
            s = relay.connect()
            s.sendall(b"hello")
            equal(receive(s, 5), b"hello", f"{fault}: served in the end")
            s.close()
        relay.stop()


main()
