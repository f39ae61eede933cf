"""Round trip of a ping at 100 a second through culvert, dpdk-testpmd and the kernel's bridge.

Twice, as on a virtual machine a sleeping worker is not all that is measured: a CPU that halts is
woken by the hypervisor, milliseconds late when other guests want its core. The second pair of tables
has a spinner of the lowest class (SCHED_IDLE) on each CPU, which gives way to all else at once and
keeps the CPU from halting: what is left there is the time that the forwarders themselves take.
"""
import contextlib
import os
import re
import subprocess

from field import candidates, harness, table
from harness import Machine, main, say

COUNT = 300


@contextlib.contextmanager
def never_halted():
    """While it lasts no CPU halts."""
    spinners = []
    try:
        for cpu in sorted(os.sched_getaffinity(0)):
            spinners.append(subprocess.Popen(
                ["chrt", "--idle", "0", "taskset", "-c", str(cpu),
                 "sh", "-c", "while :; do :; done"], stdin=subprocess.DEVNULL))
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def measure(how):
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
    table(f"round trip, half are faster; {how}", p50, "µs")
    table(f"round trip, 99 of 100 are faster; {how}", p99, "µs")


def idle():
    """one ping every 10 ms: nothing else on the way"""
    measure("CPUs halt when idle")


def awake():
    """the same while no CPU halts"""
    with never_halted():
        measure("no CPU halts")


main(idle, awake)
