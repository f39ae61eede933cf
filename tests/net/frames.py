"""Every frame crosses as it is: all sizes, all kinds, both ways at once, in order."""
import harness
from harness import Machine, expect, forwarder, main, say

MTU = 3498  # the largest with which a frame and its headroom fit everywhere (field: veth 3520)


def special():
    """A guest's kernel hands frames of unknown types over last. net_af_packet gets a tag beside
    the frame and puts it back as 0x8100, whatever it was, and asks the kernel to reassemble IPv4
    fragments."""
    if harness.OPTIONS.nics:
        return ["--unordered"]
    if harness.OPTIONS.engine != "dpdk":
        return []
    return ["--without", "vlan-double-ipv6", "--without", "ipv4-fragment"]


def over_nics(m):
    """A NIC pads what is shorter than 60 bytes; QEMU's Intel NICs drop what says IPv6 and has no
    room for the headers; emulation is slow."""
    short = [x for kind in ("ipv6-udp", "ipv6-extensions", "ipv6-cut", "vlan-double-ipv6",
                            "multicast-ipv6") for x in ("--without", kind)]
    m.frames("exact", "--both", "--sizes", "60-66", *short, *special())
    return m.frames("exact", "--both", "--sizes", "82-1499/61", "--sizes", "1500-1514",
                    *special())


def ordinary():
    """every size from a runt to 1514 bytes in every kind"""
    m = Machine()
    f = forwarder(m.ports)
    if harness.OPTIONS.nics:
        lanes = over_nics(m)
    else:
        lanes = m.frames("exact", "--both", "--sizes", "14-1514", *special())
    say(lanes)
    check(m, f, lanes)


def in_order():
    """numbered frames of 16 flows stay in order"""
    m = Machine()
    f = forwarder(m.ports)
    lanes = m.frames("flows", "--both", "--flows", 16, "--count", 200, "--size", 200, "--window", 64)
    say(lanes)
    expect(all(x["disordered"] == x["corrupt"] == 0 for x in lanes), f"lanes: {lanes}")
    check(m, f, lanes)


def large():
    """sizes up to what the largest MTU allows"""
    if harness.OPTIONS.nics:
        say("left out: every NIC has a limit of its own")
        return
    m = Machine(mtu=MTU)
    f = forwarder(m.ports)
    lanes = m.frames("exact", "--both", "--rotate", "--sizes", f"60-{MTU + 14}/3",
                     "--sizes", f"{MTU}-{MTU + 14}", *special())
    say(lanes)
    check(m, f, lanes)


def check(m, f, lanes):
    for lane in lanes:
        expect(lane["sent"] > 500 and lane["received"] == lane["sent"], f"lanes: {lanes}")
    if harness.OPTIONS.engine != "bridge":
        for port in ("wan", "lan"):
            expect(f.total(port, "tx_frames") >= lanes[0]["sent"], f"{port}: {f.status()}")
        expect(not f.drops(), f"drops: {f.drops()}")
        expect("could not be turned off" not in f.log(), f"a warning without need:\n{f.log()}")
    f.end()
    m.unchanged()


if __name__ == "__main__":
    main(ordinary, in_order, large)
