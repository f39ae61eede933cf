"""A long life: signals, crashes, devices that come and go, ports added and removed."""
import ctypes
import mmap
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time

import harness
from harness import (Culvert, Host, Machine, expect, forwarder, link, main, ports_config, run, say,
                     settings, settings_differ, veth, wait_for)


def crosses(m):
    m.a.run("ip", "neigh", "flush", "dev", "a0")  # a device made anew has another address
    m.reachable()


def stops(sig):
    m = Machine(addresses=True)
    f = forwarder(m.ports)
    crosses(m)
    f.check_law()
    f.stop(sig)
    for p in m.ports.values():
        expect("xdp" not in link(p), f"an XDP program is left on {p}")
    m.unchanged()


def sigterm():
    """SIGTERM: drains, restores, exit code 0"""
    stops(signal.SIGTERM)


def sigint():
    """SIGINT: likewise"""
    stops(signal.SIGINT)


def killed():
    """kill -9: the interfaces are free at once, the next start puts the settings back"""
    m = Machine(addresses=True)
    for p in m.ports.values():  # something that culvert has to turn off
        run("ethtool", "-K", p, "gro", "on")
    m.before = {p: settings(p) for p in m.ports.values()}
    f = forwarder(m.ports)
    crosses(m)
    changed = [x for p, was in m.before.items() for x in settings_differ(was, settings(p))]
    expect(any("generic-receive-offload" in x for x in changed), f"GRO is still on: {changed}")
    f.stop(signal.SIGKILL, expect_code=-signal.SIGKILL)
    wait_for("the XDP programs go with the process", lambda: not any(
        "xdp" in link(p) for p in m.ports.values()))
    f = forwarder(m.ports)
    crosses(m)
    f.end()
    m.unchanged()


def killed_busy():
    """kill -9 while frames pour in, twenty times over; then all is well"""
    m = Machine(addresses=True)
    stop = threading.Event()

    def pour():
        while not stop.is_set():
            m.frames("blast", "--both", "--seconds", 0.5, check=False)
    t = threading.Thread(target=pour)
    t.start()
    try:
        for _ in range(20 if harness.LONG else 5):
            f = forwarder(m.ports)
            f.stop(signal.SIGKILL, expect_code=-signal.SIGKILL)
    finally:
        stop.set()
        t.join()
    f = forwarder(m.ports)
    crosses(m)
    f.end()
    m.unchanged()


def link_down():
    """a port goes down and comes back, then its far end does"""
    m = Machine(addresses=True)
    f = forwarder(m.ports)
    crosses(m)
    run("ip", "link", "set", "p1", "down")
    wait_for("status says down", lambda: f.port("lan")["link"] == "down")
    run("ip", "link", "set", "p1", "up")
    wait_for("status says up", lambda: f.port("lan")["link"] == "up")
    crosses(m)
    m.b.run("ip", "link", "set", "b0", "down")
    wait_for("status says down", lambda: f.port("lan")["link"] == "down")
    m.b.run("ip", "link", "set", "b0", "up")
    crosses(m)
    f.end()
    m.unchanged()


def device_gone():
    """a device is deleted and made again while culvert runs: it is taken up again"""
    m = Machine(addresses=True)
    f = forwarder(m.ports)
    crosses(m)
    for i in range(3):
        run("ip", "link", "del", "p1")
        wait_for("status says gone", lambda: f.port("lan")["link"] == "gone")
        table = f.ask("status").stdout
        expect("gone  closed: the device is gone; it is opened again" in table, table)
        f.check_law()
        veth("p1", m.b, "b0")
        m.b.run("ip", "addr", "add", "10.77.0.2/24", "dev", "b0")
        m.before["p1"] = settings("p1") if i == 0 else m.before["p1"]
        crosses(m)
    f.check_law()
    fds = len(os.listdir(f"/proc/{f.pid}/fd"))
    run("ip", "link", "del", "p1")
    wait_for("status says gone", lambda: f.port("lan")["link"] == "gone")
    veth("p1", m.b, "b0")
    m.b.run("ip", "addr", "add", "10.77.0.2/24", "dev", "b0")
    crosses(m)
    expect(len(os.listdir(f"/proc/{f.pid}/fd")) <= fds, "descriptors pile up")
    f.check_law()
    f.stop()
    expect("xdp" not in link("p1"), "an XDP program is left on p1")


def long_name():
    """a port by an alternative name too long for an ioctl: attached, and taken up again"""
    long = "the-second-port-of-this-machine"
    m = Machine(addresses=True)
    run("ip", "link", "property", "add", "dev", "p1", "altname", long)
    expect("expected: engine" in run(harness.OPTIONS.culvert, "doctor", long).stdout, "doctor")
    twice = run(harness.OPTIONS.culvert, "check", "p1", long, check=False)
    expect(twice.returncode == 1 and "names of one interface" in twice.stderr, str(twice))
    ports = {**m.ports, "lan": long}
    f = forwarder(ports)
    crosses(m)
    expect(f.port("lan")["device"] == long, str(f.port("lan")))
    run("ip", "link", "del", "p1")
    wait_for("status says gone", lambda: f.port("lan")["link"] == "gone")
    veth("p1", m.b, "b0")
    run("ip", "link", "property", "add", "dev", "p1", "altname", long)
    m.b.run("ip", "addr", "add", "10.77.0.2/24", "dev", "b0")
    crosses(m)
    f.end()
    m.unchanged()


class Pairs(Machine):
    """Two pairs of hosts: a and b over p0 and p1, c and d over p2 and p3."""

    def __init__(self):
        super().__init__()
        self.c, self.d = Host("c"), Host("d")
        veth("p2", self.c, "c0")
        veth("p3", self.d, "d0")
        for i, host, device in ((3, self.c, "c0"), (4, self.d, "d0")):
            host.run("ip", "addr", "add", f"10.77.0.{i}/24", "dev", device)
        self.before.update({p: settings(p) for p in ("p2", "p3")})

    def second_crosses(self, seconds=harness.PATIENCE):
        wait_for("the second pair's frames cross", self.second_ping, seconds)

    def second_ping(self):
        return self.c.run("ping", "-n", "-c1", "-W1", "10.77.0.4", check=False).returncode == 0

    def alongside(self, body):
        """Runs body while flows cross the first pair; none of their frames may be lost."""
        out = {}

        def flows():
            while not done.is_set():
                for lane in self.frames("flows", "--both", "--flows", 4, "--count", 200,
                                        "--window", 16):
                    for key in ("sent", "lost", "disordered"):
                        out[key] = out.get(key, 0) + lane[key]
        done = threading.Event()
        errors = []

        def guarded():
            try:
                flows()
            except harness.Failure as e:
                errors.append(e)
        t = threading.Thread(target=guarded)
        t.start()
        try:
            body()
        finally:
            done.set()
            t.join()
        expect(not errors, f"the other pair's flows: {errors}")
        say("flows alongside:", out)
        expect(out["lost"] == 0 and out["disordered"] == 0 and out["sent"] > 0, str(out))


ONE = {"wan": "p0", "lan": "p1"}
TWO = {**ONE, "west": "p2", "east": "p3"}


def two_pairs(config):
    return config.replace("[[wan, lan]]", "[[wan, lan], [west, east]]")


def reload():
    """ports are added and removed while others forward; a bad file changes nothing"""
    m = Pairs()
    one, two = ports_config(ONE), two_pairs(ports_config(TWO))
    f = Culvert(one)

    def body():
        for _ in range(3):
            f.write(two)
            f.ask("reload")
            m.second_crosses()
            f.write(one)
            f.ask("reload")
            expect(len(f.status()["ports"]) == 2, "the ports are still there")
            expect("xdp" not in link("p2") and "xdp" not in link("p3"), "still attached")
            f.check_law()
    m.alongside(body)
    expect(not m.second_ping(), "the removed pair still forwards")
    f.write(one + "nonsense: true\n")
    done = f.ask("reload", check=False)
    expect(done.returncode != 0 and "nonsense" in done.stderr + done.stdout,
           f"a bad file: exit {done.returncode} {done.stdout} {done.stderr}")
    m.frames("flows", "--both", "--flows", 2, "--count", 100)
    f.check_law()
    f.stop()
    m.unchanged()


def pairs():
    """two patches side by side: nothing crosses over"""
    m = Pairs()
    f = Culvert(two_pairs(ports_config(TWO)))
    m.second_crosses()
    before = f.total("west", "tx_frames") + f.total("east", "tx_frames")
    m.frames("flows", "--both", "--flows", 16, "--count", 200)
    between = f.total("west", "tx_frames") + f.total("east", "tx_frames") - before
    expect(between < 100, f"{between} frames of the first pair came out at the second")
    f.end()
    m.unchanged()


def attach():
    """attach and detach while another pair forwards; no descriptor or BPF object piles up"""
    m = Pairs()
    f = Culvert(ports_config(ONE))
    mode = harness.OPTIONS.mode

    def body():
        fds = None
        for i in range(12 if not harness.LONG else 100):
            f.ask("attach", "p2", "p3")
            m.second_crosses()
            if i == 0:  # all or none
                done = f.ask("detach", "p2", "nope", check=False)
                expect(done.returncode == 1 and "nope" in done.stderr, str(done))
                expect("xdp" in link("p2"), "detached, although the other name is wrong")
            f.ask("detach", "p2", "p3")
            expect("xdp" not in link("p2") and "xdp" not in link("p3"), "still attached")
            if i == 1:
                fds = len(os.listdir(f"/proc/{f.pid}/fd")), len(harness.bpf_ids(f.pid))
        now = len(os.listdir(f"/proc/{f.pid}/fd")), len(harness.bpf_ids(f.pid))
        expect(now[0] <= fds[0] and now[1] <= fds[1],
               f"descriptors, BPF objects: {fds} after two rounds, {now} at the end ({mode})")
    m.alongside(body)
    f.check_law()
    f.stop()
    m.unchanged()


class Holder:
    """An AF_XDP socket of somebody else on queue 0 of a device, without a program."""
    SIZE = 4096
    SOL_XDP, RX_RING, UMEM_REG, FILL_RING, COMPLETION_RING, COPY = 283, 2, 4, 5, 6, 1 << 1

    def __init__(self, device):
        self.socket = socket.socket(socket.AF_XDP if hasattr(socket, "AF_XDP") else 44,
                                    socket.SOCK_RAW)
        self.memory = mmap.mmap(-1, self.SIZE)
        at = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.set(self.UMEM_REG, struct.pack("=QQIIII", at, self.SIZE, self.SIZE, 0, 0, 0))
        for ring in (self.FILL_RING, self.COMPLETION_RING, self.RX_RING):
            self.set(ring, struct.pack("=I", 2))
        address = struct.pack("=HHIII", 44, self.COPY, socket.if_nametoindex(device), 0, 0)
        if harness.LIBC.bind(self.socket.fileno(), address, len(address)) != 0:
            raise OSError(ctypes.get_errno(), f"binding to {device}")

    def set(self, option, value):
        self.socket.setsockopt(self.SOL_XDP, option, value)


def slow_open():
    """a port whose open takes seconds, in vain, holds up no other"""
    m = Pairs()
    m.a.run("ip", "addr", "add", "10.77.1.1/24", "dev", "a0")
    m.b.run("ip", "addr", "add", "10.77.1.2/24", "dev", "b0")
    f = Culvert(ports_config(ONE))
    wait_for("frames cross", lambda: m.a.run(
        "ping", "-n", "-c1", "-W1", "10.77.1.2", check=False).returncode == 0)
    holder = Holder("p2")
    ping = subprocess.Popen([*m.a.prefix(), "ping", "-n", "-i", "0.01", "-W", "30", "10.77.1.2"],
                            stdout=subprocess.PIPE, text=True)
    try:
        before = time.monotonic()
        done = f.ask("attach", "p2", "p3", check=False)
        took_ms = (time.monotonic() - before) * 1000
    finally:
        ping.send_signal(signal.SIGINT)
        said = ping.communicate()[0]
    expect(done.returncode == 1 and "held by another AF_XDP socket" in done.stderr, str(done))
    worst_ms = max(float(x) for x in re.findall(r"time=([0-9.]+)", said))
    say(f"the open took {took_ms:.0f} ms, the slowest ping of the other pair {worst_ms:.0f} ms")
    expect(took_ms > 1000, f"the open took only {took_ms:.0f} ms: nothing is shown")
    expect(worst_ms < took_ms / 2, f"the other pair stood still for {worst_ms:.0f} ms:\n{said}")
    holder.socket.close()
    wait_for("the port opens", lambda: f.ask("attach", "p2", "p3", check=False).returncode == 0)
    m.second_crosses()
    f.check_law()
    f.stop()
    m.unchanged()


if __name__ == "__main__":
    main(sigterm, sigint, killed, killed_busy, link_down, device_gone, long_name, pairs, reload,
         attach, slow_open)
