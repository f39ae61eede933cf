"""Round trip of a ping at 100 a second through culvert, dpdk-testpmd and the kernel's bridge."""
import re

from field import candidates, harness, table
from harness import Machine, main, say

COUNT = 300


def idle():
    """one ping every 10 ms: nothing else on the way"""
    m = Machine(addresses=True)
    p50, p99 = {}, {}
    for _ in range(harness.OPTIONS.rounds or 3):
        for name, start in candidates().items():
            forwarder = start()
            m.reachable()
            text = m.a.run("ping", "-n", "-c", COUNT, "-i", "0.01", "-W", 5, "10.77.0.2",
                           check=False).stdout
            times = sorted(float(x) * 1000 for x in re.findall(r"time=([0-9.]+)", text))
            if len(times) < COUNT:
                say(f"{name}: {COUNT - len(times)} of {COUNT} lost")
            if times:
                p50.setdefault(name, []).append(times[len(times) // 2])
                p99.setdefault(name, []).append(times[len(times) * 99 // 100])
            forwarder.end()
    table("round trip, half are faster", p50, "µs")
    table("round trip, 99 of 100 are faster", p99, "µs")


main(idle)
