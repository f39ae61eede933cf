"""Start and stop, again and again, with traffic running: nothing is left, nothing piles up."""
import subprocess

import harness
from harness import (LONG, Machine, bpf_exists, bpf_ids, expect, forwarder, link, main, say,
                     wait_for)

ROUNDS = 1000 if LONG else 25


def traffic(m):
    """Pings both ways that never end; they go when the test goes."""
    for host, far in ((m.a, 2), (m.b, 1)):
        subprocess.Popen([*host.prefix(), "ping", "-q", "-n", "-i", "0.002", "-s", "1000",
                          f"10.77.0.{far}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def gone(ids):
    return not [x for x in ids if bpf_exists(*x)]


def start_stop():
    """the daemon starts, forwards, and ends; the machine is as before each time"""
    m = Machine(addresses=True)
    traffic(m)
    for i in range(harness.OPTIONS.rounds or ROUNDS):
        f = forwarder(m.ports)
        ids = bpf_ids(f.pid)
        expect(ids or harness.OPTIONS.engine != "af_xdp", "culvert holds no BPF object")
        wait_for("frames through both ports", lambda: f.total("wan", "rx_frames") > 0 and
                 f.total("lan", "rx_frames") > 0, every=0.01)
        f.check_law()
        f.stop()
        for p in m.ports.values():
            expect("xdp" not in link(p), f"round {i}: an XDP program is left on {p}")
        m.unchanged()
        wait_for(f"round {i}: the BPF objects are freed", lambda: gone(ids))
        if i % 25 == 24:
            say(f"{i + 1} rounds")


main(start_stop)
