"""Starts culvert relay and the peers around it in a network namespace of the test's own.

A test program calls main(), which runs each test_* function of the calling module with a
deadline, stops whatever it left running, and reports in TAP. Where a namespace cannot be
had, the host's loopback with ports chosen by the kernel serves.
"""
import ctypes
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
CULVERT = os.environ.get("CULVERT", "")
PEER = os.environ.get("PEER", "")
FAULT = os.environ.get("FAULT", "")
ENDS = os.environ.get("ENDS", "")
LONG = bool(os.environ.get("CULVERT_LONG"))


def sanitized(binary):
    """Whether the build has a sanitizer in it, linked or built in."""
    try:
        with open(binary, "rb") as f:
            return bool(re.search(rb"__(asan|tsan)_init|__ubsan_handle", f.read()))
    except OSError:
        return False


# A sanitizer's build of culvert is about five times slower; its deadlines are longer, and its memory
# is not the relay's.
SLOW = 5 if sanitized(CULVERT) else 1
DEADLINE = 60  # seconds for one test, times SLOW

CLONE_NEWNET = 0x40000000
F_GETPIPE_SZ = 1032


class Skip(Exception):
    """Raised with the reason by a test that cannot run here."""


class Failure(AssertionError):
    """What the test expected and did not see."""


def check(condition, what):
    if not condition:
        raise Failure(what)


def equal(got, want, what):
    if got != want:
        raise Failure(f"{what}: got {got!r}, want {want!r}")


def eventually(probe, what, seconds=10):
    """Polls until probe() is true and returns its value."""
    end = time.monotonic() + seconds * SLOW
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"not within {seconds * SLOW} s: {what() if callable(what) else what}")
        time.sleep(0.01)


def isolate(cubic):
    """A network namespace of our own with cubic on its loopback; False if not permitted."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() or libc.unshare(CLONE_NEWNET):
        return False
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # The kernel's default is the host's to choose and here it may be bbr: twice as slow on
    # loopback. A namespace can't set its own default to every algorithm, but a route can.
    for family, prefix in () if not cubic else (("-4", "127.0.0.0/8"), ("-4", "127.0.0.1"), ("-6", "::1")):
        subprocess.run(["ip", family, "route", "replace", "local", prefix, "dev", "lo", "table",
                        "local", "congctl", "cubic"], stderr=subprocess.DEVNULL, check=False)
    return True


class Scratch:
    """What one test started and made; torn down in reverse order, whatever happened."""

    def __init__(self):
        self.things = []
        self.dir = tempfile.mkdtemp(prefix=f"culvert-relay-{os.getpid()}-")
        os.chmod(self.dir, 0o777)
        self.relays = []

    def close(self):
        for thing in reversed(self.things):
            try:
                thing.close()
            except OSError:
                pass
        shutil.rmtree(self.dir, ignore_errors=True)


scratch = None


def keep(thing):
    scratch.things.append(thing)
    return thing


def path(name):
    return os.path.join(scratch.dir, name)


class Process:
    """A child whose standard output and error are gathered by threads."""

    def __init__(self, argv, **more):
        # Pipes are read to the end, or a chatty child would stop.
        self.argv = argv
        self.out, self.err = [], []
        self.p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, errors="replace", **more)
        self.pid = self.p.pid
        self.readers = [threading.Thread(target=self.gather, args=a, daemon=True)
                        for a in ((self.p.stdout, self.out), (self.p.stderr, self.err))]
        for r in self.readers:
            r.start()
        keep(self)

    @staticmethod
    def gather(stream, to):
        for line in stream:
            to.append(line.rstrip("\n"))

    def wait(self, seconds=20):
        try:
            code = self.p.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.argv[0]} still runs after {seconds * SLOW} s") from None
        for r in self.readers:
            r.join(5)
        return code

    def close(self):
        if self.p.poll() is None:
            self.p.kill()
        self.p.wait()
        for stream in (self.p.stdin, self.p.stdout, self.p.stderr):
            try:
                stream.close()
            except (OSError, ValueError):
                pass


class Relay(Process):
    """culvert relay, up and ready."""

    def __init__(self, *endpoints, workers=None, faults=(), args=(), stats=None, ready=True,
                 limit=None, uid=None, fds=None, env=None, command=None, **settings):
        argv = []
        if faults:
            if not FAULT:
                raise Skip("no libseccomp: no faults")
            argv = [FAULT] + (["--stats", stats] if stats else []) + list(faults) + ["--"]
        # LISTEN and TO; several targets are one argument.
        argv += command or [CULVERT, "relay", endpoints[0], ",".join(endpoints[1:])]
        for key, value in settings.items():
            for one in value if isinstance(value, (list, tuple)) else [value]:
                argv += ["--set", f"{key}={one}"]
        if workers:
            argv += ["--workers", str(workers)]
        argv += args

        def before():
            if limit:
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            if uid:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)

        super().__init__(argv, preexec_fn=before if limit or uid else None,
                         pass_fds=fds or (), env=dict(os.environ, **(env or {})))
        self.stopped = False
        scratch.relays.append(self)
        if ready:
            eventually(lambda: self.logged(r"info: ready$") or self.p.poll() is not None,
                       lambda: f"{argv}: ready in {self.err}", 20)
            if self.p.poll() is not None:
                self.wait()
                raise Failure(f"{argv}: exit {self.p.returncode}: {self.err}")
            self.baseline = self.sockets()
            self.baseline_threads = self.threads()

    def logged(self, pattern):
        return [line for line in list(self.err) if re.search(pattern, line)]

    @property
    def where(self):
        """The first address it listens on, as an endpoint."""
        return self.all()[0]

    def all(self):
        found = [re.search(r"listening on (\S+)", line) for line in list(self.err)]
        return [m.group(1).rstrip(",") for m in found if m]

    @property
    def port(self):
        return int(self.where.rsplit(":", 1)[1])

    def links(self):
        got = []
        try:
            names = os.listdir(f"/proc/{self.pid}/fd")
        except FileNotFoundError:
            return got
        for name in names:
            try:
                got.append((int(name), os.readlink(f"/proc/{self.pid}/fd/{name}")))
            except OSError:
                pass
        return got

    def sockets(self):
        return sum(link.startswith("socket:") for _, link in self.links())

    def pipes(self):
        """Descriptors of pipes it made: those of its standard streams are not among them."""
        return sum(link.startswith("pipe:") for fd, link in self.links() if fd > 2)

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def cpu(self):
        """Processor seconds used."""
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wakeups(self):
        """How often its threads went to sleep of their own will, so far."""
        total = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/status", encoding="ascii") as f:
                total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", f.read(), re.M)[1])
        return total

    def memory(self):
        """Bytes of memory that are its own: anonymous, resident."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
            return int(re.search(r"^RssAnon:\s+(\d+)", f.read(), re.M)[1]) * 1024

    def states(self):
        """Its sockets as ss sees them, for the report of a failure."""
        try:
            text = subprocess.run(["ss", "-Hanptoi"], capture_output=True, text=True,
                                  check=False).stdout.replace("\n\t", " ")
        except OSError:
            return ""
        return "\n".join(line for line in text.splitlines() if f"pid={self.pid}," in line)

    def idle_again(self, seconds=10):
        """Waits until no connection's socket is left."""
        eventually(lambda: self.sockets() <= self.baseline,
                   lambda: f"{self.sockets()} sockets, {self.baseline} at start\n{self.states()}",
                   seconds)
        equal(self.threads(), self.baseline_threads, "threads")

    def quiet(self, seconds=1, most=10, what="", looks=2):
        """Fails if the relay is busy though nothing can move: wake-ups and CPU by the second.

        Only the last of the looks counts: what was in flight may settle first."""
        for look in range(1, looks + 1):
            w, c, t = self.wakeups(), self.cpu(), time.monotonic()
            time.sleep(seconds)
            t = time.monotonic() - t
            rate, load = (self.wakeups() - w) / t, (self.cpu() - c) / t
            if rate <= most * max(1, self.baseline_threads) and load <= 0.1:
                return
            if look == looks:
                raise Failure(f"busy though idle{what}: {rate:.0f} wake-ups a second, "
                              f"{100 * load:.0f}% CPU")

    def connect(self, timeout=20, where=None):
        return connect(where or self.where, timeout)

    def totals(self):
        """The counters of its first route, as the last lines of its log give them."""
        got = {}
        for line in self.logged(r"route \S+: (connections|errors?)\b.*="):
            for key, value in re.findall(r"([a-z_]+)=(\d+)", line):
                got.setdefault(key, int(value))
        return got

    def stop(self, seconds=20, code=0, leak=True):
        """SIGTERM; the exit code must be right and nothing may have leaked before."""
        if leak and self.p.poll() is None:
            self.idle_again()
        self.p.send_signal(signal.SIGTERM)
        equal(self.wait(seconds), code, f"exit code, log {self.err[-5:]}")
        self.stopped = True
        bad = self.logged(r"Sanitizer|runtime error|[Aa]ssert")
        check(not bad, f"log: {bad}")


def address(endpoint):
    """An endpoint as Python's family and address."""
    if endpoint.startswith("unix:"):
        name = endpoint[5:]
        return socket.AF_UNIX, ("\0" + name[1:]) if name[0] == "@" else name
    host, port = endpoint.split(":", 1)[1].rsplit(":", 1)
    if host.startswith("["):
        return socket.AF_INET6, (host[1:-1], int(port))
    return socket.AF_INET, (host, int(port))


def connect(endpoint, timeout=20, rcvbuf=0, sndbuf=0, source=None):
    family, addr = address(endpoint)
    s = socket.socket(family, socket.SOCK_STREAM)
    keep(s)
    s.settimeout(timeout * SLOW)
    if rcvbuf:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    if sndbuf:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
    if source:
        s.bind((source, 0))
    s.connect(addr)
    if family != socket.AF_UNIX:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def reset(s):
    """Closes with a reset."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def receive(s, size):
    """Exactly size bytes, or what came before the end."""
    got = bytearray()
    while len(got) < size:
        part = s.recv(min(1 << 20, size - len(got)))
        if not part:
            break
        got += part
    return bytes(got)


def receive_all(s):
    got = bytearray()
    while True:
        part = s.recv(1 << 20)
        if not part:
            return bytes(got)
        got += part


def ended(s):
    """How the stream ends, reading what is left: "fin" or "reset"."""
    try:
        receive_all(s)
        return "fin"
    except (ConnectionResetError, BrokenPipeError):
        return "reset"


class Listener:
    """A target whose connections the test takes one by one, or a handler serves in threads."""

    def __init__(self, endpoint="tcp:127.0.0.1:0", handler=None, rcvbuf=0, backlog=1024):
        family, addr = address(endpoint)
        self.s = socket.socket(family, socket.SOCK_STREAM)
        if family != socket.AF_UNIX:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if rcvbuf:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.s.bind(addr)
        self.s.listen(backlog)
        self.s.settimeout(20 * SLOW)
        self.accepted = 0
        self.handler = handler
        self.where = endpoint
        if family == socket.AF_INET:
            self.where = f"tcp:{addr[0]}:{self.s.getsockname()[1]}"
        elif family == socket.AF_INET6:
            self.where = f"tcp:[{addr[0]}]:{self.s.getsockname()[1]}"
        keep(self)
        if handler:
            self.s.settimeout(None)
            threading.Thread(target=self.serve, daemon=True).start()

    @property
    def port(self):
        return int(self.where.rsplit(":", 1)[1])

    def serve(self):
        while True:
            try:
                c, _ = self.s.accept()
            except OSError:
                return
            self.accepted += 1
            c.settimeout(30 * SLOW)
            threading.Thread(target=self.guard, args=(c,), daemon=True).start()

    def guard(self, c):
        try:
            self.handler(c)
        except OSError:
            pass
        finally:
            c.close()

    def accept(self):
        c, _ = self.s.accept()
        c.settimeout(20 * SLOW)
        if c.family != socket.AF_UNIX:
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.accepted += 1
        return keep(c)

    def close(self):
        try:
            self.s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.s.close()


def echo(c):
    c.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if c.family != socket.AF_UNIX:
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        part = c.recv(1 << 16)
        if not part:
            return
        c.sendall(part)


def full_listener():
    """A target that takes no connection: its backlog is full."""
    full = Listener(backlog=0)
    for _ in range(4):
        try:
            connect(full.where, timeout=0.3)
        except OSError:
            break
    return full


def saying(text):
    """A handler that says who it is and waits for the end."""
    def handler(c):
        c.sendall(text.encode())
        c.shutdown(socket.SHUT_WR)
        while c.recv(1 << 16):
            pass
    return handler


def ask(endpoint, **more):
    """What the target at the other end says, or None if it can't be had."""
    try:
        s = connect(endpoint, **more)
        s.shutdown(socket.SHUT_WR)
        text = receive_all(s).decode()
        s.close()
        return text or None
    except OSError:
        return None


class Server(Process):
    """peer serve: checks what its clients send."""

    def __init__(self, endpoint="tcp:127.0.0.1:0", *args):
        super().__init__([PEER, "serve", *map(str, args), endpoint])
        eventually(lambda: self.out or self.p.poll() is not None, "peer listens")
        check(self.out, f"peer: {self.err}")
        self.where = endpoint if endpoint.startswith("unix") else self.out[0].split()[1]

    def finish(self, tolerate=False):
        self.p.stdin.close()
        self.wait()
        got = json.loads(self.out[-1])
        if not tolerate:
            equal(got["bad"], 0, f"server's connections ({got['failure']})")
        return got


def load(endpoint, *args, seconds=50, tolerate=False, **options):
    """peer load; options are its long options."""
    argv = [PEER, "load", "--deadline", str(int(seconds * SLOW)), *map(str, args)]
    for key, value in options.items():
        argv += ["--" + key.replace("_", "-"), str(value)]
    p = Process(argv + [endpoint])
    code = p.wait(seconds + 10)
    check(p.out, f"{argv}: {p.err}")
    got = json.loads(p.out[-1])
    if not tolerate:
        equal((code, got["bad"]), (0, 0), f"client's connections ({got['failure']})")
    return got


def run(*argv, seconds=20, **more):
    """Runs a command to its end: its exit code and all it said."""
    p = Process(list(map(str, argv)), **more)
    try:
        p.p.stdin.close()
    except OSError:
        pass
    code = p.wait(seconds)
    return code, "\n".join(p.err + p.out)


def try_connection(endpoint):
    """Connects and waits for the other side to end it: "fin", "reset" or "refused"."""
    try:
        s = connect(endpoint)
    except ConnectionResetError:
        return "reset"
    except ConnectionRefusedError:
        return "refused"
    how = ended(s)
    s.close()
    return how


def wait_readable(s, seconds):
    return bool(select.select([s], [], [], seconds * SLOW)[0])


def on_alarm(_signal, _frame):
    raise Failure(f"deadline of {DEADLINE * SLOW} s passed")


def main(cubic=True):
    global scratch
    module = sys.modules["__main__"]
    tests = [(n, f) for n, f in vars(module).items() if n.startswith("test_") and callable(f)]
    if len(sys.argv) > 1:
        tests = [(n, f) for n, f in tests if any(a in n for a in sys.argv[1:])]
    if not CULVERT or not os.access(CULVERT, os.X_OK):
        print("1..0 # SKIP no culvert: set CULVERT, PEER, FAULT and ENDS")
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGALRM, on_alarm)
    # Whoever ends us early must not leave our children behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"# namespace of its own: {'yes' if isolate(cubic) else 'no'}; "
          f"deadlines times {SLOW}; soft limit was {soft}", flush=True)
    print(f"1..{len(tests)}", flush=True)
    failed = 0
    for number, (name, test) in enumerate(tests, 1):
        title = name[5:].replace("_", " ")
        scratch = Scratch()
        began = time.monotonic()
        signal.alarm(DEADLINE * SLOW)
        try:
            test()
            result, note = "ok", f" # {time.monotonic() - began:.1f} s"
        except Skip as e:
            result, note = "ok", f" # SKIP {e}"
        except BaseException as e:  # pylint: disable=broad-except
            if isinstance(e, KeyboardInterrupt):
                raise
            result, note = "not ok", f" # {time.monotonic() - began:.1f} s"
            failed += 1
            text = str(e) if isinstance(e, Failure) else "".join(traceback.format_exc())
            where = traceback.extract_tb(e.__traceback__)
            lines = [" ".join(f"{f.name}:{f.lineno}" for f in where), *text.splitlines()]
            for relay in scratch.relays:
                lines.append(f"relay {relay.argv}, exit {relay.p.poll()}, its log ends:")
                lines += ["  " + line for line in relay.err[-30:]]
            # Of a failed TAP test meson prints standard error only.
            for line in lines:
                print("#", line, file=sys.stderr)
        finally:
            signal.alarm(0)
            scratch.close()
        print(f"{result} {number} - {title}{note}", flush=True)
    sys.exit(1 if failed else 0)
