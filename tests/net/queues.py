"""Four queues a port, two workers: flows on every queue arrive, none is disordered."""
import harness
from harness import Machine, expect, forwarder, main, say


def napi(host, device):
    """Receive rings of its own for each queue: without, a veth hands frames to whatever CPU the
    sender runs on, and the kernel itself may disorder them."""
    host.run("ethtool", "-K", device, "gro", "on")


def check_flows(lanes, f):
    say(lanes)
    for lane in lanes:
        expect(lane["lost"] == 0 and lane["disordered"] == 0 and lane["corrupt"] == 0, str(lanes))
    expect(not f.drops(), f"drops: {f.drops()}")


def check_queues(f, port, n, workers):
    if harness.OPTIONS.engine == "bridge":
        return
    if harness.OPTIONS.engine == "dpdk":
        n = workers  # a queue pair for each, over which a fanout spreads what comes
    queues = f.port(port)["queues"]
    expect(sorted(q["queue"] for q in queues) == list(range(n)), f"{port}: queues {queues}")
    # A veth without NAPI (skb mode) names its transmit queue one too low: the last stays empty.
    used = queues[:-1] if harness.OPTIONS.mode == "skb" and n > 1 else queues
    idle = [q["queue"] for q in used if q["rx_frames"] == 0]
    expect(not idle, f"{port}: nothing came through the queues {idle}")
    expect({q["worker"] for q in queues} == set(range(workers)), f"{port}: workers {queues}")


def four_queues():
    """four queues on both ports, two workers"""
    m = Machine(queues=(4, 4))
    napi(m.a, "a0")
    napi(m.b, "b0")
    f = forwarder(m.ports, workers=2)
    check_flows(m.frames("flows", "--both", "--flows", 128, "--count", 400, "--window", 128), f)
    check_flows(m.frames("flows", "--both", "--flows", 16, "--count", 500, "--size", 1500), f)
    for port in ("wan", "lan"):
        check_queues(f, port, 4, 2)
    f.end()
    m.unchanged()


def uneven():
    """four queues on one port, one on the other, one worker"""
    m = Machine(queues=(4, 1))
    napi(m.a, "a0")
    napi(m.b, "b0")
    f = forwarder(m.ports)
    check_flows(m.frames("flows", "--both", "--flows", 128, "--count", 200, "--window", 128), f)
    check_queues(f, "wan", 4, 1)
    check_queues(f, "lan", 1, 1)
    f.end()
    m.unchanged()


main(four_queues, uneven)
