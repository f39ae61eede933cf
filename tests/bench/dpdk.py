#!/usr/bin/env python3
"""Packets a second of culvert over DPDK ports, and of testpmd's io loop in its place: the same
devices, cores and peer process, in turns, in one run.

The forwarder joins a device to another; what is counted is what it received and sent on the first.
Where no peer has to keep up, a second is one of the forwarding thread's CPU time, so that other
programs on the machine don't count. Elsewhere all of it runs at the head of the queue for CPU time,
and what two CPUs hand each other depends on how far they are from one another, twofold: in a
virtual machine the hypervisor moves them about, within a second. So the distance is taken
(cache_line.c) before and after each window, and only windows of the same distance are set beside
one another. Both forwarders are there at once, each with a peer of its own, and by turns one pair
runs for a window while the other is stopped; where the peer is testpmd it counts for both.
"""
import atexit
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = int(os.environ.get("CULVERT_BENCH_ROUNDS", "3"))
TRIES = 3  # of a round in which a program does not come up or stalls
SECONDS = 3.0
TURNS = 40  # a round
WINDOW_SECONDS = 0.3
SETTLE_SECONDS = 0.02  # for what a stop left in the rings
GENERATOR_SECONDS = 0.2  # for its system call to begin
TURNS_LEAST = 5  # for a figure
PATIENCE = 30.0
# The way of a cache line there and back, in ns, below which the CPUs are one core's threads, cores
# with a cache in common, or (all else) cores without.
DISTANCES = ((45, "one core"), (150, "one cache"), (1e9, "apart"))

GENERATE = "generate"  # frames for {p}, as many as one CPU brings there
# name: the forwarder's two devices, and its peer: None, GENERATE, or testpmd with its devices and
# mode.
CASES = {
    "net_null": (("net_null0", "net_null1"), None),
    "memif": (("net_memif0,role=server,socket={dir}/memif,socket-abstract=no", "net_null0"),
              (("net_memif0,role=client,socket={dir}/memif,socket-abstract=no", "net_null0"), "io")),
    "vhost": (("net_vhost0,iface={dir}/vhost", "net_null0"),
              (("net_virtio_user0,path={dir}/vhost", "net_null0"), "io")),
    "af_packet": (("net_af_packet0,iface={p}", "net_af_packet1,iface={q}"), GENERATE),
}


class Failed(Exception):
    pass


def wait_for(what, condition, pause=0.05):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {PATIENCE:.0f} s")
        time.sleep(pause)


class Program:
    """A child with its output in a file."""

    def __init__(self, command):
        self.out = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self.out,
                                        stderr=subprocess.STDOUT)

    def text(self):
        self.out.flush()
        size = os.fstat(self.out.fileno()).st_size
        return os.pread(self.out.fileno(), size, 0).decode(errors="replace")

    def wait_text(self, words):
        def there():
            if self.process.poll() is not None:
                raise Failed((self.text().strip().splitlines() or ["it ended"])[-1])
            return words in self.text()
        wait_for(words, there)

    def cpu_s(self):
        """CPU time of the forwarding thread."""
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            with open(f"/proc/{self.process.pid}/task/{task}/comm", encoding="utf-8") as f:
                if f.read().strip() != self.thread:
                    continue
            with open(f"/proc/{self.process.pid}/task/{task}/schedstat", encoding="utf-8") as f:
                return int(f.read().split()[0]) / 1e9
        raise Failed(f"no thread {self.thread}")

    def rate(self, clock, seconds):
        """Per second of clock()."""
        first, at = self.frames(), clock()
        time.sleep(seconds)
        last, end = self.frames(), clock()
        return (last - first) / (end - at)

    def halt(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        if self.process.poll() is None:
            self.go_on()
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.out.close()


class Testpmd(Program):
    """Forwards on one core; the other lcore, on the same core set as all else, only waits."""
    count = 0
    thread = "rte-worker-1"

    def __init__(self, devices, mode, core, cores):
        Testpmd.count += 1
        vdevs = [x for d in devices for x in ("--vdev", d)]
        self.prefix = f"culvert-bench-{os.getpid()}-{Testpmd.count}"
        self.asked = 0
        super().__init__([
            "stdbuf", "-oL", "dpdk-testpmd", "--no-huge", "-m", "512", "--no-pci", "--no-telemetry",
            "--file-prefix", self.prefix,
            "--lcores", f"0@{cores[0]},1@{core}", *vdevs, "--", f"--forward-mode={mode}",
            "--no-mlockall", "--total-num-mbufs=16384", "--interactive", "--auto-start",
            "--rxd=2048", "--txd=2048"])
        self.wait_text("testpmd> ")

    def end(self):
        if self.process.poll() is None:
            self.process.stdin.close()  # the end of its commands: it leaves
        super().end()
        shutil.rmtree(f"/var/run/dpdk/{self.prefix}", ignore_errors=True)

    def frames(self):
        """Received and sent on the first port."""
        def told():
            return re.findall(r"RX-packets: (\d+).*?TX-packets: (\d+).*?\n", self.text(), re.S)
        self.process.stdin.write(b"show port stats 0\n")
        self.process.stdin.flush()
        self.asked += 1
        wait_for("an answer of testpmd", lambda: len(told()) >= self.asked, 0.001)
        return sum(map(int, told()[-1]))


class Generator(Program):
    """Runs in the kernel, on one core (generate.c): its far end must have NAPI, by GRO, which a
    forwarder may have turned off."""

    def __init__(self, program, device, far, core):
        path = os.path.join(os.path.dirname(program), "../tests/net/net_generate")
        if not os.path.exists(path):
            raise Failed(f"no {path}: it is built with AF_XDP")
        subprocess.run(["ethtool", "-K", far, "gro", "on"], check=True)
        super().__init__([path, device, "64", "3600", str(core)])

    def end(self):
        self.process.kill()
        self.process.wait()
        super().end()


class Culvert(Program):
    thread = "worker-0"

    def __init__(self, program, devices, core, where):
        self.socket = f"{where}/control.sock"
        config = f"{where}/culvert.yaml"
        ports = "\n".join(f'  - {{ name: {n}, device: "dpdk:{d}", busy: true, checksums: off }}'
                          for n, d in zip("ab", devices))
        with open(config, "w", encoding="utf-8") as f:
            f.write(f"ports:\n{ports}\nforward:\n  patch: [[a, b]]\n")
        super().__init__(["taskset", "-c", str(core), program, "run", "--config", config,
                          "--socket", self.socket])
        self.wait_text("info: ready")

    def frames(self):
        """Asked here: a process for each question takes a hundredth of the window's CPU time."""
        with socket.socket(socket.AF_UNIX) as s, s.makefile("rb") as answer:
            s.settimeout(PATIENCE)
            s.connect(self.socket)
            s.sendall(b"GET /status HTTP/1.0\r\n\r\n")
            told = answer.read().partition(b"\r\n\r\n")[2]
        q = json.loads(told)["ports"][0]["queues"][0]
        return q["rx_frames"] + q["tx_frames"]


def distance_between(cores):
    program = os.path.join(os.path.dirname(os.path.abspath(sys.argv[1])),
                           "../tests/bench/cache_line")
    done = subprocess.run([program, str(cores[0]), str(cores[-1])], capture_output=True, text=True,
                          timeout=PATIENCE, check=True)
    return next(name for most, name in DISTANCES if int(done.stdout) < most)


def links(ends):
    """{name: veth device}: p and q, of pairs p-a and q-b."""
    links.made += 1
    names = {x: f"{x}{links.made}" for x in "pqab"}
    for port, far in ((names["p"], names["a"]), (names["q"], names["b"])):
        subprocess.run(["ip", "link", "add", port, "type", "veth", "peer", "name", far], check=True)
        ends.callback(subprocess.run, ["ip", "link", "del", port], check=False)
        for device in (port, far):
            subprocess.run(["sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=1"], check=True)
            subprocess.run(["ip", "link", "set", device, "up"], check=True)
    return names


links.made = 0


def alone(who, case, cores):
    """[(no distance, rate)]; who: what starts the forwarder."""
    with tempfile.TemporaryDirectory() as where, contextlib.ExitStack() as ends:
        forwarder = who(CASES[case][0], cores[-1], where)
        ends.callback(forwarder.end)
        time.sleep(1)
        return [("", forwarder.rate(forwarder.cpu_s, SECONDS))]


def pair(who, case, cores, ends):
    """A forwarder and its peer, stopped, and who counts."""
    (devices, peer), names = CASES[case], {"dir": tempfile.mkdtemp()}
    ends.callback(shutil.rmtree, names["dir"])
    if peer == GENERATE:
        names.update(links(ends))
    forwarder = who([d.format(**names) for d in devices], cores[-1], names["dir"])
    ends.callback(forwarder.end)
    if peer == GENERATE:
        other = Generator(os.path.abspath(sys.argv[1]), names["a"], names["p"], cores[0])
    else:
        other = Testpmd([d.format(**names) for d in peer[0]], peer[1], cores[0], cores)
    ends.callback(other.end)
    counts = forwarder if peer == GENERATE else other
    first = counts.frames()
    wait_for("frames", lambda: counts.frames() != first)
    for p in (other, forwarder):
        p.halt()
    return forwarder, other, counts


def window(forwarder, peer, counts, cores):
    """(distance, rate), or None where the distance changed."""
    for p in (forwarder, peer):
        p.go_on()
    near = distance_between(cores)
    time.sleep(SETTLE_SECONDS if counts is peer else GENERATOR_SECONDS)
    rate = counts.rate(time.monotonic, WINDOW_SECONDS)
    kept = distance_between(cores) == near
    for p in (peer, forwarder):
        p.halt()
    return (near, rate) if kept else None


def by_turns(whos, case, cores):
    """{who: window() of each turn}."""
    figures = {who: [] for who in whos}
    with contextlib.ExitStack() as ends:
        pairs = [(who, *pair(who, case, cores, ends)) for who in whos]
        for _ in range(TURNS):
            for who, *programs in pairs:
                figures[who].append(window(*programs, cores))
            pairs.reverse()
    return figures


def measure_round(whos, case, cores):
    if CASES[case][1]:
        return measure_again(case, lambda: by_turns(whos, case, cores))
    return {who: measure_again(case, lambda who=who: alone(who, case, cores)) for who in whos}


def measure_again(case, attempt):
    """The figures of a try that went well."""
    for left in reversed(range(TRIES)):
        try:
            return attempt()
        except (Failed, OSError, subprocess.SubprocessError, ValueError) as e:
            if left == 0:
                raise
            print(f"{case:10} once more: {e}", flush=True)


def first_in_line():
    """Our programs before others': by niceness, and that of our session, until we end, where the
    kernel shares CPU time by sessions (man 7 sched, autogroup)."""
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    group = "/proc/self/autogroup"

    def put(nice):
        with open(group, "w", encoding="utf-8") as f:
            f.write(nice)
    if os.path.exists(group):
        with open(group, encoding="utf-8") as f:
            atexit.register(put, f.read().split()[-1])
        put("-20")


def enter():
    """Into a network namespace of its own."""
    if os.environ.get("CULVERT_BENCH_INSIDE") != "1":
        os.environ["CULVERT_BENCH_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--", sys.executable, *sys.argv])


def tell(case, ours, theirs):
    """A line for each distance with enough turns in which both had it; the ratio is the median of
    theirs."""
    turns = [(a[0], a[1] / 1e6, b[1] / 1e6) for a, b in zip(ours, theirs)
             if a and b and a[0] == b[0]]
    if not turns:
        print(f"{case:10} no figure: the CPUs kept their distance in no turn", flush=True)
    for near in sorted({near for near, _, _ in turns}):
        a, b = ([turn[i] for turn in turns if turn[0] == near] for i in (1, 2))
        if near and len(a) < TURNS_LEAST:
            print(f"{case:10} {near:9} too few turns: {len(a)}", flush=True)
            continue
        each = [x / y for x, y in zip(a, b)]
        low, ratio, high = statistics.quantiles(each, n=4, method="inclusive") \
            if len(each) > 1 else each * 3
        print(f"{case:10} {near:9} culvert {statistics.median(a):6.2f} Mpps, testpmd io"
              f" {statistics.median(b):6.2f}: {ratio:.2f} times (half of {len(a)} turns {low:.2f} to"
              f" {high:.2f})", flush=True)


def main():
    cores = sorted(os.sched_getaffinity(0))
    if os.geteuid() != 0 or not shutil.which("dpdk-testpmd") or len(cores) < 2:
        print("left out: needs root, dpdk-testpmd (package dpdk) and two CPUs")
        return
    enter()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started and stopped ends, too
    first_in_line()
    program = os.path.abspath(sys.argv[1])
    wanted = sys.argv[2:] or CASES

    def ours(devices, core, where):
        return Culvert(program, devices, core, where)

    def theirs(devices, core, where):
        return Testpmd(devices, "io", core, cores)

    for case in wanted:
        figures = {ours: [], theirs: []}
        try:
            for _ in range(ROUNDS):
                for who, rates in measure_round(list(figures), case, cores).items():
                    figures[who] += rates
        except (Failed, OSError, subprocess.SubprocessError, ValueError) as e:
            print(f"{case:10} no figure: {e}", flush=True)
            continue
        tell(case, *figures.values())


main()
