"""Every frame crosses as it is: all sizes, all kinds, both ways at once, in order."""
import harness
from harness import Machine, expect, forwarder, main, say

MTU = 3498  # the largest with which a frame and its headroom fit everywhere (field: veth 3520)


def left_out():
    """net_af_packet gets a tag beside the frame and puts it back as 0x8100, whatever it was, and
    asks the kernel to reassemble IPv4 fragments."""
    if harness.OPTIONS.engine != "dpdk":
        return []
    return ["--without", "vlan-double-ipv6", "--without", "ipv4-fragment"]


def ordinary():
    """every size from a runt to 1514 bytes in every kind"""
    m = Machine()
    f = forwarder(m.ports)
    lanes = m.frames("exact", "--both", "--sizes", "14-1514", *left_out())
    say(lanes)
    check(m, f, lanes)


def large():
    """sizes up to what the largest MTU allows"""
    m = Machine(mtu=MTU)
    f = forwarder(m.ports)
    lanes = m.frames("exact", "--both", "--rotate", "--sizes", f"60-{MTU + 14}/3",
                     "--sizes", f"{MTU}-{MTU + 14}", *left_out())
    say(lanes)
    check(m, f, lanes)


def check(m, f, lanes):
    for lane in lanes:
        expect(lane["sent"] > 1000 and lane["received"] == lane["sent"], f"lanes: {lanes}")
    if harness.OPTIONS.engine != "bridge":
        for port in ("wan", "lan"):
            expect(f.total(port, "tx_frames") >= lanes[0]["sent"], f"{port}: {f.status()}")
        expect(not f.drops(), f"drops: {f.drops()}")
    f.end()
    m.unchanged()


main(ordinary, large)
