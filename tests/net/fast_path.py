"""The kernel forwards by itself where it may: the same frames come out, each that is lost is
counted, and where a peer takes no redirected frames they go through user space."""
import os
import signal
import socket
import threading

import harness
from harness import (PATIENCE, Culvert, Machine, bpf_exists, bpf_ids, ethtool_counters, expect,
                     link, main, ports_config, run, say, wait_for)

ENDS = (("a", "a0"), ("b", "b0"))


def gro(m, name, on):
    """The far end of a veth takes redirected frames only while it polls: with GRO, or XDP."""
    device = dict(ENDS)[name]
    {"a": m.a, "b": m.b}[name].run("ethtool", "-K", device, "gro", "on" if on else "off")


def machine(both=True, **kw):
    m = Machine(**kw)
    for name, _ in ENDS:
        if both:
            gro(m, name, True)
    return m


def culvert(m, **kw):
    return Culvert(ports_config(m.ports, more="  fast_path: auto\n", **kw))


def state(f, port):
    return f.port(port)["fast_path"]


def is_on(f, port):
    s = state(f, port)
    if "tracepoints" in s["reason"] or "doesn't tell" in s["reason"]:
        harness.skip(f"no fast path on this kernel: {s['reason']}")
    return s["on"]


def wait_on(f, *ports):
    for port in ports or ("wan", "lan"):
        wait_for(f"fast path of {port}", lambda p=port: is_on(f, p))


def wait_off(f, port, reason):
    wait_for(f"fast path of {port} off: {reason}",
             lambda: not state(f, port)["on"] and reason in state(f, port)["reason"])


def through_user_space(f):
    """Frames; the hosts' own first ones may come before the fast path is on."""
    return sum(q["kernel"]["bpf_redirected"] for p in f.status()["ports"] for q in p["queues"])


def lost(f):
    return sum(state(f, p)[k] for p in ("wan", "lan") for k in ("lost_full", "lost_refused"))


def forwarding(**kw):
    """A machine, and a culvert on it whose ports forward in the kernel."""
    m = machine(**kw)
    f = culvert(m)
    wait_on(f)
    return m, f


def exact(m, f):
    lanes = m.frames("exact", "--both", "--rotate", "--sizes", "14-1514")
    for lane in lanes:
        expect(lane["sent"] > 1000 and lane["received"] == lane["sent"], f"lanes: {lanes}")
    return lanes[0]["sent"]


def frames():
    """every size in every kind, all of it in the kernel"""
    m, f = forwarding()
    before = through_user_space(f)
    sent = exact(m, f)
    for port in ("wan", "lan"):
        expect(state(f, port)["frames"] >= sent, f"{port}: {f.port(port)}")
    expect(through_user_space(f) == before, f"{f.status()}")
    expect(lost(f) == 0, f"lost: {f.status()}")
    f.end()
    m.unchanged()


def off():
    """without being asked nothing is forwarded in the kernel"""
    m = machine()
    f = Culvert(ports_config(m.ports))
    sent = exact(m, f)
    for port in ("wan", "lan"):
        expect(not state(f, port)["on"] and state(f, port)["frames"] == 0, f"{f.port(port)}")
        expect(f.total(port, "tx_frames") >= sent, f"{port}: {f.port(port)}")
    f.end()
    m.unchanged()


def check():
    """`culvert check` says beforehand what run then does, for each direction"""
    m = machine()
    gro(m, "a", False)
    config = ports_config(m.ports, more="  fast_path: auto\n")
    path = f"{harness.RUN_DIR}/check.yaml"
    with open(path, "w") as out:
        out.write(config)
    said = run(harness.OPTIONS.culvert, "check", "--config", path).stdout
    say(said)
    ports = {part.split(":")[0]: part for part in said.split("port ")[1:]}
    if "tracepoints" in said or "doesn't tell" in said:
        harness.skip(f"no fast path on this kernel: {said}")
    expect("    fast path: the kernel forwards to lan by itself\n" in ports["wan"], said)
    expect("    no fast path: p0 takes no redirected frames" in ports["lan"], said)
    expect("gro on" in ports["lan"], said)
    f = Culvert(config)
    wait_on(f, "wan")
    wait_off(f, "lan", "p0 takes no redirected frames")
    f.end()
    with open(path, "w") as out:
        out.write(ports_config(m.ports))
    said = run(harness.OPTIONS.culvert, "check", "--config", path).stdout
    expect("fast path" not in said, said)
    m.unchanged()


def checksum_errors(host):
    """Every counter of bad checksums that the host's kernel keeps."""
    found = {}
    with open(f"/proc/{host.pid}/net/snmp") as s:
        lines = s.read().splitlines()
    for names, values in zip(lines[::2], lines[1::2]):
        for name, value in zip(names.split()[1:], values.split()[1:]):
            if "CsumErrors" in name or name == "InHdrErrors":
                found[names.split(":")[0] + name] = int(value)
    with open(f"/proc/{host.pid}/net/snmp6") as s:
        for line in s:
            name, value = line.split()
            if "CsumErrors" in name or name == "Ip6InHdrErrors":
                found[name] = int(value)
    return {k: v for k, v in found.items() if v}


def stream(source, target, family, address, size):
    """One TCP connection, size bytes, checked; the error or None."""
    block = os.urandom(1 << 16)
    listener = target.socket(family, socket.SOCK_STREAM)
    client = source.socket(family, socket.SOCK_STREAM)
    problem = []

    def send():
        try:
            client.settimeout(PATIENCE)
            client.connect((address, listener.getsockname()[1]))
            for _ in range(size // len(block)):
                client.sendall(block)
            client.shutdown(socket.SHUT_WR)
        except OSError as e:
            problem.append(f"{source.name} sends: {e}")

    with listener, client:
        listener.bind(("", 0))
        listener.listen(1)
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        got = bytearray()
        s, _ = listener.accept()
        with s:
            s.settimeout(PATIENCE)
            while data := s.recv(1 << 16):
                got += data
        thread.join(PATIENCE)
        expect(not problem, problem)
        expect(bytes(got) == block * (size // len(block)),
               f"{source.name} to {target.name}: {len(got)} of {size} bytes, or others")


def datagrams(m):
    for family, address in ((socket.AF_INET, "10.77.0.2"), (socket.AF_INET6, "fd77::2")):
        one, two = (h.socket(family, socket.SOCK_DGRAM) for h in (m.a, m.b))
        with one, two:
            two.bind(("", 0))
            two.settimeout(PATIENCE)
            for size in (0, 1, 18, 511, 1452, 1473, 9000):
                data = os.urandom(size)
                one.sendto(data, (address, two.getsockname()[1]))
                expect(two.recv(65536) == data, f"{family.name}: {size} bytes came as others")


def tcp():
    """TCP and UDP between hosts whose transmit offloads are on: checksums are completed"""
    m, f = forwarding(ipv6=True, addresses=True)
    before = through_user_space(f)
    m.reachable()
    for host, far in ((m.a, 2), (m.b, 1)):
        host.run("ping", "-n", "-q", "-c", 5, "-i", 0.02, "-W", 20, "-s", 4000, f"10.77.0.{far}")
    datagrams(m)
    for source, target, far in ((m.a, m.b, 2), (m.b, m.a, 1)):
        stream(source, target, socket.AF_INET, f"10.77.0.{far}", 16 << 20)
        stream(source, target, socket.AF_INET6, f"fd77::{far}", 16 << 20)
    for host in m.hosts:
        expect(not checksum_errors(host), f"host {host.name} counted {checksum_errors(host)}")
    for port in ("wan", "lan"):
        s = state(f, port)
        expect(s["on"] and s["checksums_completed"] > 1000, f"{port}: {s}")
    expect(through_user_space(f) == before, f"{f.status()}")
    f.end()
    m.unchanged()


def host_frames():
    """what is for this host stays with it"""
    m = machine(addresses=True)
    run("ip", "addr", "add", "10.77.0.9/24", "dev", "p0")
    f = culvert(m)
    wait_on(f)
    m.reachable()
    m.a.run("ping", "-n", "-q", "-c", 10, "-i", 0.02, "-W", 20, "10.77.0.9")
    kept = sum(q["kernel"]["bpf_to_host"] for q in f.port("wan")["queues"])
    expect(kept >= 10, f"kept {kept}")
    f.end()


def no_polling():
    """far ends as a veth has them by default: user space, and it says what would help"""
    m = machine(both=False)
    f = culvert(m)
    for port in ("wan", "lan"):
        wait_off(f, port, "takes no redirected frames")
        expect("gro on" in state(f, port)["remedy"], f"{state(f, port)}")
    exact(m, f)
    expect(lost(f) == 0, f"lost: {f.status()}")
    gro(m, "b", True)
    wait_on(f, "wan")
    wait_off(f, "lan", "takes no redirected frames")
    exact(m, f)
    expect(lost(f) == 0, f"lost: {f.status()}")
    f.end()
    m.unchanged()


def adds_up(f, before, was):
    """What was handed to p1 since then is what its device took, and what is counted as lost."""
    s = state(f, "wan")
    gone = s["lost_full"] + s["lost_refused"]
    done = ethtool_counters("p1")["tx_queue_0_xdp_xmit"] - before["tx_queue_0_xdp_xmit"]
    say("handed over", s["frames"] - was, "taken", done, "lost", gone)
    return s["frames"] - was == done + gone


def stops_polling():
    """a far end that stops to take frames under traffic: few are lost, all are counted"""
    m, f = forwarding(addresses=True)
    m.reachable()
    sender = m.a.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stop = threading.Event()
    sent = [0]

    def send():
        while not stop.is_set():
            try:
                sender.sendto(b"x" * 100, ("10.77.0.2", 9))
                sent[0] += 1
            except OSError:
                pass  # the destination's "port unreachable" comes back

    before = ethtool_counters("p1")
    was = state(f, "wan")["frames"]
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        for _ in range(3):
            wait_for("traffic", lambda n=sent[0]: sent[0] > n + 1000)
            gro(m, "b", False)
            wait_for("fast path off", lambda: not state(f, "wan")["on"])
            n = f.total("lan", "tx_frames")
            wait_for("user space forwards", lambda: f.total("lan", "tx_frames") > n + 200)
            gro(m, "b", True)
            wait_on(f, "wan")
    finally:
        stop.set()
        thread.join(PATIENCE)
        sender.close()
    m.reachable()
    wait_for("the counters add up", lambda: adds_up(f, before, was))
    exact(m, f)
    f.end()
    m.unchanged()


def overload():
    """more than the far end takes: what is lost is counted"""
    m, f = forwarding()
    before, was = ethtool_counters("p1"), state(f, "wan")["frames"]
    m.frames("blast", "--seconds", 2, "--size", 64, "--flows", 16, check=False)
    wait_for("the counters add up", lambda: adds_up(f, before, was))
    s = state(f, "wan")
    expect(s["frames"] > was + 1000, f"{s}")
    expect(s["lost_refused"] == 0 and s["on"], f"{s}")
    f.end()
    m.unchanged()


def far_end_is_narrow():
    """a far end with a smaller MTU than its port: frames too long for it are counted"""
    m, f = forwarding(addresses=True)
    m.reachable()
    m.b.run("ip", "link", "set", "b0", "mtu", 1000)
    m.a.run("ping", "-n", "-q", "-c", 20, "-i", 0.02, "-W", 1, "-s", 1400, "10.77.0.2", check=False)
    s = state(f, "wan")
    expect(s["lost_full"] >= 20 and s["lost_refused"] == 0 and s["on"], f"{s}")
    m.reachable()
    f.end()


def queues():
    """four queues on each port"""
    m = machine(queues=(4, 4))
    f = culvert(m, workers=2)
    wait_on(f)
    lanes = m.frames("flows", "--both", "--flows", 64, "--count", 400, "--window", 128)
    for lane in lanes:
        expect(lane["lost"] == lane["disordered"] == lane["corrupt"] == 0, f"{lanes}")
    expect(state(f, "wan")["frames"] >= 64 * 400, f"{f.status()}")
    f.end()
    m.unchanged()


def carrier():
    """the far end goes down and comes back"""
    m, f = forwarding(addresses=True)
    m.reachable()
    m.b.run("ip", "link", "set", "b0", "down")
    for port in ("wan", "lan"):
        wait_off(f, port, "lan is down")
    m.b.run("ip", "link", "set", "b0", "up")
    wait_on(f)
    m.reachable()
    f.end()


def attach():
    """a port goes and comes back: its peer's frames go nowhere meanwhile, and are counted"""
    m, f = forwarding(addresses=True)
    m.reachable()
    f.ask("detach", "lan")
    wait_off(f, "wan", "no peer")
    frames = state(f, "wan")["frames"]
    m.a.run("ping", "-n", "-c2", "-W1", "-i", 0.2, "10.77.0.2", check=False)
    expect(state(f, "wan")["frames"] == frames, "frames went to a port that is gone")
    expect(f.drops().get(("wan", "no_peer"), 0) > 0, f"drops: {f.drops()}")
    f.ask("attach", "p1", "wan")
    wait_on(f, "wan", "p1")
    m.reachable()
    f.end()
    m.unchanged()


def killed():
    """kill -9: nothing is left"""
    m, f = forwarding(addresses=True)
    m.reachable()
    held = bpf_ids(f.pid)
    expect(any(kind == "link" for kind, _ in held), f"{held}")
    f.stop(signal.SIGKILL, expect_code=-signal.SIGKILL)
    wait_for("the programs are gone", lambda: not any(
        "xdp" in link(p) for p in m.ports.values()))
    wait_for("the kernel let go of all", lambda: not any(bpf_exists(*x) for x in held))
    f = culvert(m)
    wait_on(f)
    m.reachable()
    f.end()
    m.unchanged()


main(frames, off, check, tcp, host_frames, no_polling, stops_polling, overload, far_end_is_narrow,
     queues, carrier, attach,
     killed)
