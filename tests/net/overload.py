"""Far more frames than can be forwarded: none leaks, each lost one has a counter, it goes on."""
import json
import subprocess
import threading
import time

import harness
from harness import (Machine, ethtool_counters, expect, forwarder, link, main, say, wait_for)

SECONDS = 20 if harness.LONG else 4


def counters(m):
    """What every place on the way from a to b has counted, in frames."""
    seen = {}
    for name, host in (("a0", m.a), ("p0", None), ("p1", None), ("b0", m.b)):
        stats = link(name, host)["stats64"]
        for way in ("rx", "tx"):
            seen[f"{name} {way}"] = stats[way]["packets"]
            seen[f"{name} {way} dropped"] = stats[way]["dropped"]
        errors = [v for k, v in ethtool_counters(name, host).items() if "xmit_errors" in k]
        seen[f"{name} xdp errors"] = sum(errors)
    return seen


def culvert_counters(f):
    seen = {}
    for p in f.status()["ports"]:
        device = p["device"].partition("iface=")[2].split(",")[0] or p["device"]
        for what in ("rx_frames", "tx_frames"):
            seen[device, what] = sum(q[what] for q in p["queues"])
        seen[device, "drops"] = sum(n for q in p["queues"] for n in q["drops"].values())
        for name in ("rx_dropped", "rx_ring_full", "bpf_to_host", "bpf_no_socket"):
            seen[device, name] = sum(q["kernel"].get(name, 0) for q in p["queues"])
    return seen


def settled(m, f):
    """The counters once nothing moves any more."""
    last = [None]

    def still():
        now = counters(m), culvert_counters(f)
        same, last[0] = now == last[0], now
        return same
    wait_for("the counters stand still", still, every=0.3)
    return last[0]


def check_way(kernel, ours, source, first, second, target):
    """Each frame that came into the first port is at the far end, or in one counter."""
    came = kernel[f"{source} tx"]
    o = {k[1]: v for k, v in ours.items() if k[0] == first}
    taken = o["rx_frames"] + o["rx_dropped"] + o["rx_ring_full"] + o["bpf_to_host"] + \
        o["bpf_no_socket"]
    say(f"{source} -> {target}: sent {came}, forwarder took {o['rx_frames']}, {o}")
    expect(came == taken, f"{came} frames came to {first}, {taken} are accounted for: {ours}")
    sent = ours[second, "tx_frames"]
    expect(o["rx_frames"] == sent + o["drops"],
           f"{first} took {o['rx_frames']}, {second} sent {sent}, dropped {o['drops']}")
    out = kernel[f"{second} tx"] + kernel[f"{second} tx dropped"]
    expect(sent == out, f"{second} sent {sent}, its device counted {out}: {kernel}")
    arrived = kernel[f"{target} rx"]
    expect(arrived == kernel[f"{second} tx"], f"{second} sent {out}, {target} has {arrived}")
    expect(arrived > 1000, f"only {arrived} frames crossed")


def watch(m, device, host, still_running):
    """Frames per second at the far end, while the flood lasts."""
    rates, before = [], link(device, host)["stats64"]["rx"]["packets"]
    while still_running():
        time.sleep(0.5)
        now = link(device, host)["stats64"]["rx"]["packets"]
        rates.append(2 * (now - before))
        before = now
    return rates


def after(m, f, window=64):
    """The forwarder is as good as before."""
    lanes = m.frames("flows", "--both", "--flows", 8, "--count", 500, "--window", window)
    for lane in lanes:
        expect(lane["lost"] == 0 and lane["disordered"] == 0, f"after the flood: {lanes}")
    f.end()
    m.unchanged()


def check(m, f):
    kernel, ours = settled(m, f)
    f.check_law()
    check_way(kernel, ours, "a0", "p0", "p1", "b0")
    return kernel, ours


def flood():
    """the kernel's own generator, one way, millions of frames a second"""
    if harness.OPTIONS.mode == "skb" or harness.OPTIONS.engine == "dpdk":
        say("left out: without XDP in the driver a veth takes no frames from the generator")
        return
    m = Machine()
    m.b.run("ethtool", "-K", "b0", "gro", "on")
    f = forwarder(m.ports)
    offer = subprocess.Popen([*m.a.prefix(), harness.OPTIONS.generate, "a0", "64", str(SECONDS),
                              "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    rates = watch(m, "b0", m.b, lambda: offer.poll() is None)
    out, err = offer.communicate()
    expect(offer.returncode == 0, f"generate: {err}")
    offered = json.loads(out)
    say(f"offered {offered['sent'] / offered['seconds'] / 1e6:.2f} Mpps, delivered per second "
        f"{rates}")
    kernel, _ = check(m, f)
    expect(offered["sent"] == kernel["a0 tx"] + kernel["a0 xdp errors"],
           f"offered {offered['sent']}: {kernel}")
    expect(sum(r > 0 for r in rates) >= len(rates) / 2, f"forwarding stops: {rates}")
    after(m, f)


def both_ways():
    """senders on both hosts at once, large frames too"""
    m = Machine()
    m.a.run("ethtool", "-K", "a0", "gro", "on")
    m.b.run("ethtool", "-K", "b0", "gro", "on")
    f = forwarder(m.ports)
    for size in (64, 1500):
        busy = threading.Thread(target=m.frames, args=(
            "blast", "--both", "--seconds", SECONDS / 2, "--size", size))
        busy.start()
        rates = watch(m, "b0", m.b, busy.is_alive)
        busy.join()
        say(f"{size} bytes: delivered per second {rates}")
    kernel, ours = check(m, f)
    check_way(kernel, ours, "b0", "p1", "p0", "a0")
    after(m, f)


def few_slots():
    """hardly more slots than the rings hold: starved, but nothing is lost for good"""
    if harness.OPTIONS.engine == "dpdk":
        say("left out: the ring of a packet socket is not made of slots")
        return
    m = Machine()
    m.b.run("ethtool", "-K", "b0", "gro", "on")
    f = forwarder(m.ports, more="slots: 256\n", rings=64)
    m.frames("blast", "--both", "--seconds", 1)
    check(m, f)
    after(m, f, window=8)


main(flood, both_ways, few_slots)
