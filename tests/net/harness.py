"""What every network test stands on: a private machine, hosts around it, and culvert between them.

The test re-executes itself in namespaces of its own (network, mounts, processes): its network
namespace is "the machine" that forwards, hosts are child processes in anonymous namespaces, and
everything is gone with the test, however it ends.
"""
import argparse
import atexit
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

SKIP = 77
# Seconds for what takes one on an idle machine; emulated ones (tests/vm) are slow.
PATIENCE = 240.0 if "--nics" in sys.argv else 60.0
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
LONG = os.environ.get("CULVERT_LONG") == "1"
PCI = {}  # device: the PCI address by which DPDK has it, while the kernel has not


class Failure(Exception):
    pass


def expect(condition, message):
    if not condition:
        raise Failure(message)


def skip(reason):
    print("skipped:", reason, flush=True)
    sys.exit(SKIP)


def say(*words):
    print(f"[{time.monotonic() - START:7.2f}]", *words, flush=True)


START = time.monotonic()


def wait_for(what, condition, seconds=PATIENCE, every=0.02):
    """The first true value of condition(); Failure when it stays false."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)


def run(*command, check=True, timeout=PATIENCE, **kw):
    """A command to its end; its output as text."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, **kw)
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: exit {done.returncode}\n"
                      f"{done.stdout}{done.stderr}")
    return done


def setns(fd):
    if LIBC.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Host:
    """A machine beside ours: a process asleep in a network namespace without a name."""

    def __init__(self, name):
        self.name = name
        ready, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                if LIBC.unshare(CLONE_NEWNET) == 0:
                    os.write(told, b"1")
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        os.close(told)
        ok = os.read(ready, 1)
        os.close(ready)
        self.path = f"/proc/{self.pid}/ns/net"
        if ok != b"1":
            os.kill(self.pid, signal.SIGKILL)
            raise Failure(f"no network namespace for {name}")
        self.run("ip", "link", "set", "lo", "up")

    def prefix(self):
        return ["nsenter", f"--net={self.path}", "--"]

    def run(self, *command, **kw):
        return run(*self.prefix(), *command, **kw)

    def socket(self, *args):
        """A socket of this host, in our hands."""
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(self.path, os.O_RDONLY)
        try:
            setns(there)
            try:
                return socket.socket(*args)
            finally:
                setns(here)
        finally:
            os.close(here)
            os.close(there)

    def wire(self, device):
        return f"{self.path}:{device}"

    def close(self):
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def veth(port, host, device, queues=1, mtu=1500, ipv6=False):
    """A port of ours joined to a device of a host. Offloads stay as the kernel makes them."""
    n = ["numrxqueues", queues, "numtxqueues", queues]
    run("ip", "link", "add", port, "mtu", mtu, *n, "type", "veth", "peer", "name", device,
        "mtu", mtu, *n, "netns", host.pid)
    quiet(port)
    if not ipv6:
        host.run("sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=1")
    else:
        host.run("sysctl", "-qw", f"net.ipv6.conf.{device}.accept_dad=0")
    host.run("ip", "link", "set", device, "up")
    run("ip", "link", "set", port, "up")


def nic(port, host, device, mtu=1500, ipv6=False):
    """The same over a guest's NICs (tests/vm): both are there, wired to each other outside."""
    ours = [port] if port not in PCI else []
    for name in (*ours, device):  # an end may still be on its way back from a host that is gone
        wait_for(f"device {name}", lambda: link(name))
        run("ip", "link", "set", name, "down", "mtu", mtu)
    run("ip", "link", "set", device, "netns", host.pid)
    for name in ours:
        quiet(name)
    if not ipv6:
        host.run("sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=1")
    else:
        host.run("sysctl", "-qw", f"net.ipv6.conf.{device}.accept_dad=0")
    # GRO would hold TCP frames back at the end and others overtake them there; so would fq_codel.
    host.run("ethtool", "-K", device, "gro", "off")
    host.run("tc", "qdisc", "replace", "dev", device, "root", "pfifo")
    # virtio_net turns the filter off a moment after it was told: for the first frames too late.
    host.run("ip", "link", "set", device, "promisc", "on")
    host.run("ip", "link", "set", device, "up")
    for name in ours:
        run("ip", "link", "set", name, "up")
    for name, where in (*((x, None) for x in ours), (device, host)):
        wait_for(f"carrier of {name}", lambda: link(name, where)["operstate"] == "UP")


def nics_name():
    """tests/vm/guest.py numbers the addresses of its NICs."""
    for item in json.loads(run("ip", "-j", "link", "show").stdout):
        address = item.get("address", "")
        if address.startswith("52:54:00:00:00:0"):
            run("ip", "link", "set", item["ifname"], "down", "name",
                ("p0", "p1", "a0", "b0")[int(address[-1])])


def quiet(port):
    """The machine itself sends nothing on its port: every frame there is one of the test's."""
    run("sysctl", "-qw", f"net.ipv6.conf.{port}.disable_ipv6=1")


def link(device, host=None):
    """What `ip` says of a device, with counters; None: there is no such device."""
    runner = host.run if host else run
    done = runner("ip", "-j", "-d", "-s", "link", "show", "dev", device, check=False)
    return json.loads(done.stdout)[0] if done.returncode == 0 else None


def ethtool_counters(device, host=None):
    text = (host.run if host else run)("ethtool", "-S", device).stdout
    return {k.strip(): int(v) for k, v in (x.split(":") for x in text.splitlines()[1:])}


def settings(device):
    """Everything culvert might change on a device."""
    state = link(device)
    if state is None:
        return None
    kept = {k: state.get(k) for k in ("mtu", "promiscuity", "allmulti", "txqlen", "xdp",
                                      "gso_max_size", "gro_max_size", "qdisc")}
    # The kernel takes features from the peer while XDP is on and gives them back itself.
    kept["features"] = run("ethtool", "-k", device).stdout
    for name in ("napi_defer_hard_irqs", "gro_flush_timeout", "threaded"):
        try:
            with open(f"/sys/class/net/{device}/{name}") as f:
                kept[name] = f.read().strip()
        except OSError:
            pass
    return kept


def settings_differ(before, after):
    """A line for each setting that is not as it was."""
    lines = []
    for key in before:
        if before[key] == after[key]:
            continue
        if key == "features":
            was, now = before[key].splitlines(), after[key].splitlines()
            lines += [f"{a.strip()} -> {b.strip()}" for a, b in zip(was, now) if a != b]
        else:
            lines.append(f"{key}: {before[key]} -> {after[key]}")
    return lines


class Culvert:
    """`culvert run` with a configuration; the log is kept and shown when a test fails."""
    count = 0
    alive = []

    def __init__(self, config=None, args=(), wrapper=(), ready=True, env=None):
        Culvert.count += 1
        self.dir = f"{RUN_DIR}/{Culvert.count}"
        os.makedirs(self.dir)
        self.socket = f"{self.dir}/control.sock"
        self.config = None
        command = [*wrapper, OPTIONS.culvert, "run"]
        if config is not None:
            self.config = f"{self.dir}/culvert.yaml"
            self.write(config)
            command += ["--config", self.config]
        command += ["--socket", self.socket, *map(str, args)]
        self.log_path = f"{self.dir}/log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL,
                                            env={**os.environ, **(env or {})})
        self.pid = self.process.pid
        self.slots = None
        Culvert.alive.append(self)
        if ready:
            self.wait_ready()

    def write(self, config):
        with open(self.config, "w") as f:
            f.write(config)

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def wait_ready(self):
        def ready():
            if any(line.rstrip().endswith("ready") for line in self.log().splitlines()):
                return True
            if self.process.poll() is not None:
                raise Failure(f"culvert ended with {self.process.returncode} before it was "
                              f"ready:\n{self.log()}")
            return False
        wait_for("culvert ready", ready)

    def wait_log(self, text, seconds=PATIENCE):
        return wait_for(f'"{text}" in the log', lambda: text in self.log(), seconds)

    def ask(self, *words, check=True):
        return run(OPTIONS.culvert, *words, "--socket", self.socket, check=check)

    def status(self):
        return json.loads(self.ask("status", "--json").stdout)

    def port(self, name):
        for p in self.status()["ports"]:
            if p["name"] == name or p["device"] == name:
                return p
        raise Failure(f"no port {name} in status")

    def total(self, name, what):
        return sum(q[what] for q in self.port(name)["queues"])

    def check_law(self):
        """The frame law, on every worker. Frames that move while the four numbers are read make
        them differ for a moment; what is lost stays lost."""
        last = {"frames": []}
        self.status()  # its own failure is the clearer one

        def holds():
            last.update(self.status())
            return last["frames"] and all(
                f["lost"] == 0 and f["slots"] > 0 and
                f["free"] + f["fill"] + f["worker_held"] + f["tx"] + f["driver"] ==
                f["slots"]
                for f in last["frames"])
        try:
            wait_for("the frame law", holds, 20)
        except Failure:
            raise Failure(f"the frame law is broken: {last['frames']}") from None

    def drops(self):
        return {(p["name"], reason): n for p in self.status()["ports"] for q in p["queues"]
                for reason, n in q["drops"].items() if n}

    def stop(self, sig=signal.SIGTERM, expect_code=0, seconds=PATIENCE):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            code = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"culvert did not end within {seconds:.0f} s of {sig!r}") from None
        Culvert.alive.remove(self)
        expect(expect_code is None or code == expect_code,
               f"culvert ended with {code}, not {expect_code}:\n{self.log()}")
        return code

    def end(self):
        """The proper end of a test: the law, a clean exit, nothing to complain about in the log."""
        self.check_law()
        self.stop()
        bad = [x for x in self.log().splitlines()
               if "error:" in x or "Sanitizer" in x or "runtime error" in x]
        expect(not bad, "the log has errors:\n" + "\n".join(bad))


def ports_config(ports, mode=None, workers=1, more="", patch=True, engine=None, rings=0):
    """The ordinary configuration: ports (name: device), the first two patched."""
    mode = mode or OPTIONS.mode
    sizes = f", rx_ring: {rings}, tx_ring: {rings}" if rings else ""
    lines = [f"workers: {workers}", f"engine: {engine or OPTIONS.engine}", "ports:"]
    for name, device in ports.items():
        if device in PCI:
            lines.append(f'  - {{ name: {name}, device: "dpdk:{PCI[device]}" }}')
        elif OPTIONS.engine == "dpdk":
            # A ring slot must hold the largest frame; a queue for each worker.
            device = (f"dpdk:net_af_packet_{device},iface={device},qpairs={workers},"
                      "framesz=4096,blocksz=4096,framecnt=1024")
            lines.append(f'  - {{ name: {name}, device: "{device}" }}')
        else:
            lines.append(f"  - {{ name: {name}, device: {device}, mode: {mode}, "
                         f"require: {mode}{sizes} }}")
    if patch:
        lines += ["forward:", "  patch: [[" + ", ".join(list(ports)[:2]) + "]]"]
    return "\n".join(lines) + "\n" + more


class Bridge:
    """The kernel's bridge in culvert's place: shows that a test, not culvert, is at fault."""

    def __init__(self, *devices):
        if run("ip", "link", "add", "bridge", "type", "bridge", "mcast_snooping", 0,
               "group_fwd_mask", 0x4000, check=False).returncode != 0:
            skip("this kernel has no bridge")
        run("sysctl", "-qw", "net.ipv6.conf.bridge.disable_ipv6=1")
        for d in devices:
            run("ip", "link", "set", d, "master", "bridge")
        run("ip", "link", "set", "bridge", "up")
        for family in ("iptables", "ip6tables", "arptables"):  # br_netfilter drops bad IP headers
            run("sysctl", "-qw", f"net.bridge.bridge-nf-call-{family}=0", check=False)

    def total(self, name, what):
        return 0

    def check_law(self):
        pass

    def status(self):
        return {"ports": [], "frames": []}

    def drops(self):
        return {}

    def end(self):
        run("ip", "link", "del", "bridge")


def forwarder(ports, **kw):
    """What the suite is run over, between the devices of ports (name: device)."""
    if OPTIONS.engine == "bridge":
        return Bridge(*ports.values())
    return Culvert(ports_config(ports, **kw))


class Machine:
    """Two hosts, a and b, joined by ports p0 and p1 of ours: a:a0--p0 p1--b:b0."""

    def __init__(self, queues=(1, 1), mtu=1500, ipv6=False, addresses=False):
        self.a, self.b = Host("a"), Host("b")
        self.hosts = [self.a, self.b]
        if OPTIONS.nics:
            nic("p0", self.a, "a0", mtu, ipv6)
            nic("p1", self.b, "b0", mtu, ipv6)
        else:
            veth("p0", self.a, "a0", queues[0], mtu, ipv6)
            veth("p1", self.b, "b0", queues[1], mtu, ipv6)
        self.ports = {"wan": "p0", "lan": "p1"}
        if addresses:
            for i, host, device in ((1, self.a, "a0"), (2, self.b, "b0")):
                host.run("ip", "addr", "add", f"10.77.0.{i}/24", "dev", device)
                if ipv6:
                    host.run("ip", "addr", "add", f"fd77::{i}/64", "dev", device, "nodad")
        self.before = {p: settings(p) for p in self.ports.values() if p not in PCI}

    def frames(self, mode, *args, timeout=600, check=True):
        """tests/net/frames between the two hosts; what it reports, a list of lanes."""
        # One CPU: a sender that moves between two disorders its own frames.
        done = run("taskset", "-c", max(os.sched_getaffinity(0)), OPTIONS.frames, mode, "--from", self.a.wire("a0"), "--to", self.b.wire("b0"),
                   *args, timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise Failure(f"frames {mode} {' '.join(map(str, args))}:\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout.splitlines()[-1])

    def reachable(self, seconds=PATIENCE):
        """Waits until frames cross, both ways."""
        wait_for("frames cross", lambda: self.a.run(
            "ping", "-c1", "-W1", "-n", "10.77.0.2", check=False).returncode == 0, seconds)

    def unchanged(self):
        """Nothing of ours is left on the ports (the kernel may take a moment)."""
        def same():
            return all(not settings_differ(was, settings(p)) for p, was in self.before.items())
        try:
            wait_for("settings put back", same, 20)
        except Failure:
            lines = [f"{p}: {x}" for p, was in self.before.items()
                     for x in settings_differ(was, settings(p))]
            raise Failure("settings of the ports are not as before:\n" +
                          "\n".join(lines)) from None


def bpf_ids(pid):
    """(kind, id) of every BPF object a process holds."""
    found = set()
    try:
        fds = os.listdir(f"/proc/{pid}/fdinfo")
    except OSError:
        return found
    for fd in fds:
        try:
            with open(f"/proc/{pid}/fdinfo/{fd}") as f:
                for line in f:
                    key, _, value = line.partition(":")
                    if key in ("prog_id", "map_id", "link_id"):
                        found.add((key[:-3], int(value)))
        except OSError:
            pass
    return found


def bpf_exists(kind, ident):
    return run("bpftool", kind, "show", "id", ident, check=False).returncode == 0


def options():
    p = argparse.ArgumentParser()
    p.add_argument("--culvert", required=True)
    p.add_argument("--frames", default="")
    p.add_argument("--refuse", default="")
    p.add_argument("--generate", default="")
    p.add_argument("--drop", default="")
    p.add_argument("--engine", default="af_xdp", choices=["af_xdp", "dpdk", "bridge"])
    p.add_argument("--mode", default="copy")
    p.add_argument("--only", default="", help="only the parts whose names contain this")
    p.add_argument("--rounds", type=int, default=0)
    p.add_argument("--replug", default="", help="likewise: QEMU's name of NICs that it can unplug")
    p.add_argument("--nics", action="store_true", help="in a guest of tests/vm: over its NICs")
    return p.parse_args()


OPTIONS = None
RUN_DIR = "/run/culvert-test"


def enter():
    """Into namespaces of our own, or out with a skip."""
    if os.geteuid() != 0:
        skip("needs root: network namespaces and AF_XDP")
    for tool in ("unshare", "nsenter", "ip", "ethtool", "sysctl"):
        if not shutil.which(tool):
            skip(f"needs {tool} (packages iproute2, util-linux, ethtool, procps)")
    space = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
             *(["--net"] if "--nics" not in sys.argv else []), "--"]
    tried = subprocess.run([*space, "true"], stderr=subprocess.PIPE, text=True)
    if tried.returncode != 0:
        skip("namespaces are not permitted here: " + tried.stderr.strip())
    os.environ["CULVERT_TEST_INSIDE"] = "1"
    sys.stdout.flush()
    os.execvp(space[0], [*space, sys.executable, *sys.argv])


def furnish():
    """A private /run, /sys of our network namespace, bpffs."""
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    if not OPTIONS.nics:
        run("mount", "-t", "sysfs", "sysfs", "/sys")
    os.makedirs("/sys/fs/bpf", exist_ok=True)
    if run("mount", "-t", "bpf", "bpffs", "/sys/fs/bpf", check=False).returncode != 0:
        say("no bpffs here")
    if os.path.isdir("/sys/kernel/debug"):
        run("mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug", check=False)
    run("ip", "link", "set", "lo", "up")
    if OPTIONS.nics:
        nics_name()
    os.makedirs(RUN_DIR, exist_ok=True)


def leave(signum, frame):
    sys.exit(128 + signum)


def main(*parts):
    """Runs the parts (functions without arguments, or lists of them made by the options)."""
    global OPTIONS
    if os.environ.get("CULVERT_TEST_INSIDE") != "1":
        enter()
    OPTIONS = options()
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    furnish()
    ran = failed = 0
    for part in parts:
        if OPTIONS.only and OPTIONS.only not in part.__name__:
            continue
        ran += 1
        say(f"--- {part.__name__}: {(part.__doc__ or '').strip().splitlines()[0:1]}")
        try:
            part()
        except (Failure, subprocess.TimeoutExpired, OSError, KeyError, ValueError) as e:
            failed += 1
            say(f"FAILED {part.__name__}: {type(e).__name__}: {e}")
            if not isinstance(e, Failure):
                import traceback
                traceback.print_exc(file=sys.stdout)
            for c in Culvert.alive:
                print(f"--- log of culvert {c.pid}:\n{c.log()}")
        clear()
    say(f"{ran - failed} good, {failed} failed")
    sys.exit(1 if failed or not ran else 0)


def clear():
    """Whatever a part left: processes, hosts, devices."""
    for c in list(Culvert.alive):
        if c.process.poll() is None:
            c.process.kill()
        c.process.wait()
        Culvert.alive.remove(c)
    for entry in os.listdir("/proc"):
        # We are the first process of our own process namespace: all others are the part's.
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                os.kill(int(entry), signal.SIGKILL)
            except ProcessLookupError:
                pass
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    for item in json.loads(run("ip", "-j", "link", "show").stdout):
        if item["ifname"] != "lo":
            run("ip", "link", "del", item["ifname"], check=False)


atexit.register(sys.stdout.flush)
