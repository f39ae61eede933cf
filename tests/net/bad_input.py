"""Each mistake gets one clear line with the remedy, an exit code, and changes nothing."""
import re
import socket

import harness
from harness import Culvert, Machine, expect, main, run, say, settings, wait_for

BASE = """ports:
  - {{ name: wan, device: {wan} }}
  - {{ name: lan, device: {lan} }}
forward:
  patch: [[wan, lan]]
"""


class Case:
    """What is run, and what must come of it."""

    def __init__(self, m):
        self.m = m

    def __call__(self, name, config, codes, *words, args=(), wrapper=()):
        c = Culvert(config, args, wrapper=wrapper, ready=False)
        try:
            wait_for(f"{name}: culvert ends", lambda: c.process.poll() is not None, 60)
        except harness.Failure:
            raise harness.Failure(f"{name}: culvert goes on:\n{c.log()}") from None
        code = c.stop(expect_code=None)
        log = c.log()
        errors = [x for x in log.splitlines() if "error:" in x]
        say(f"{name}: exit {code}: {' / '.join(errors)}")
        expect(code in codes, f"{name}: exit {code}, not {codes}:\n{log}")
        expect(len(errors) == 1, f"{name}: {len(errors)} error lines:\n{log}")
        for word in words:
            expect(re.search(word, errors[0], re.I), f"{name}: nothing about {word!r}:\n{log}")
        expect("ready" not in log.split(), f"{name}: said ready")
        self.m.unchanged()


def devices():
    """devices that aren't there, can't do it, or are taken"""
    m = Machine()
    case = Case(m)
    case("unknown device", BASE.format(wan="p0", lan="nowhere0"), {1, 2}, "nowhere0")
    case("device twice", BASE.format(wan="p0", lan="p0"), {1, 2}, "p0", "twice|already|both")
    run("ip", "link", "set", "lo", "mtu", 1500)
    without = BASE.format(wan="p0", lan="lo").replace("device: lo", "device: lo, require: copy")
    case("no native XDP", without, {1}, "lo", "driver", "mode: auto")
    case("no zero-copy", BASE.format(wan="p0", lan="p1").replace(
        "device: p1", "device: p1, require: zero-copy"), {1}, "p1", "zero-copy")


def taken():
    """another XDP program holds the interface"""
    m = Machine()
    other = Culvert(BASE.format(wan="p0", lan="p1"))
    held = {p: settings(p) for p in m.ports.values()}
    m.before, before = held, m.before
    case = Case(m)
    case("held by another culvert", BASE.format(wan="p0", lan="p1"), {1}, "p0",
         "another|other|held|already|attached")
    m.before = before
    other.end()
    m.unchanged()


def mtu():
    """an MTU with which frames would be cut"""
    m = Machine(mtu=9000)
    case = Case(m)
    case("MTU 9000", BASE.format(wan="p0", lan="p1"), {1}, "MTU", "ip link set|mtu [0-9]+|[0-9]{4}",
         args=("--require", "copy"))


def rights():
    """capabilities and limits that are missing"""
    m = Machine()
    case = Case(m)
    good = BASE.format(wan="p0", lan="p1")
    case("no CAP_NET_RAW", good, {3}, "CAP_NET_RAW", wrapper=("setpriv", "--bounding-set",
                                                              "-net_raw"))
    case("no CAP_BPF", good, {3}, "CAP_BPF|bpf", wrapper=(
        "setpriv", "--bounding-set", "-bpf,-sys_admin,-perfmon"))
    case("no CAP_NET_ADMIN", good, {3}, "CAP_NET_ADMIN", wrapper=(
        "setpriv", "--bounding-set", "-net_admin,-sys_admin"))
    case("locked memory", good, {3}, "MEMLOCK|locked|ulimit", wrapper=(
        "prlimit", "--memlock=65536:65536", "setpriv", "--bounding-set", "-ipc_lock"))


def files():
    """mistakes in the file: FILE:LINE, and what would be right"""
    m = Machine()
    case = Case(m)
    good = BASE.format(wan="p0", lan="p1")
    line = r"culvert\.yaml:\d+"
    case("unknown key", good + "workerz: 2\n", {1, 2}, line, "workerz", "workers")
    case("unknown key of a port", good.replace("p1 }", "p1, colour: red }"), {1, 2}, line, "colour")
    case("wrong type", good + "workers: many\n", {1, 2}, line, "workers")
    case("wrong type of ports", "ports: 3\n", {1, 2}, line, "ports")
    case("unknown mode", good.replace("p1 }", "p1, mode: fast }"), {1, 2}, line, "fast", "copy")
    case("patched twice", good.replace("[[wan, lan]]", "[[wan, lan], [lan, wan]]"), {1, 2}, line,
         "wan|lan", "patch")
    case("unknown port", good.replace("[[wan, lan]]", "[[wan, lam]]"), {1, 2}, line, "lam")
    case("same name twice", good.replace("name: lan", "name: wan").replace(
        "[[wan, lan]]", "[]"), {1, 2}, line, "wan")
    case("no YAML", "ports: [\n", {1, 2}, line)
    case("ring no power of two", good.replace("p1 }", "p1, rx_ring: 1000 }"), {1, 2}, "rx_ring",
         "power|1024")
    case("nothing to do", "workers: 1\n", {1, 2})
    done = run(harness.OPTIONS.culvert, "run", "--config", "/nowhere.yaml", check=False)
    expect(done.returncode in (1, 2) and "/nowhere.yaml" in done.stderr, str(done))


def command_line():
    """mistakes on the command line: exit code 2, and how it would be right"""
    for words in (["frobnicate"], ["run", "--frobnicate"], ["run", "p0"],
                  ["run", "--mode", "fast", "p0", "p1"], ["run", "--workers", "x", "p0", "p1"]):
        done = run(harness.OPTIONS.culvert, *words, check=False)
        say(" ".join(words), "->", done.returncode, done.stderr.strip().splitlines()[:1])
        expect(done.returncode == 2 and done.stderr, f"{words}: {done.returncode} {done.stderr}")


def relay_target():
    """an unreachable relay target does not stop the daemon: clients are refused, the log says it"""
    Machine()
    with socket.create_server(("127.0.0.1", 0)) as s:
        closed = s.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as s:
        listen = s.getsockname()[1]
    c = Culvert(f"""relay:
  - {{ name: web, listen: "tcp:127.0.0.1:{listen}", to: ["tcp:127.0.0.1:{closed}"], when: always }}
""")

    def refused():
        try:
            with socket.create_connection(("127.0.0.1", listen), timeout=60) as s:
                expect(s.recv(1) == b"", "bytes from nowhere")
        except ConnectionResetError:
            pass
        return f"127.0.0.1:{closed} is down" in c.log()
    wait_for("the log names the target", refused, every=0.1)
    said = [x for x in c.log().splitlines() if str(closed) in x]
    expect(len(said) == 1, f"once, not each time: {said}")
    c.stop()


main(devices, taken, mtu, rights, files, command_line, relay_target)
