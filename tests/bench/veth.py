"""Frames a second delivered across two veth pairs: culvert, dpdk-testpmd and the kernel's bridge.

The generator has one CPU, the forwarder the other; the far end drops frames first thing and its
device counts them. Rounds are interleaved, so that whatever else the machine does hits all alike.
"""
import os
import subprocess
import time

from field import OTHER_CPU, candidates, expect, harness, table
from harness import Machine, link, main, say

SECONDS = float(os.environ.get("CULVERT_BENCH_SECONDS", "2"))


def delivered(m):
    return link("b0", m.b)["stats64"]["rx"]["packets"]


def measure(m, size):
    """Mpps that arrive at b0 while the generator offers all it can."""
    tool = subprocess.Popen([*m.a.prefix(), harness.OPTIONS.generate, "a0", str(size),
                             str(SECONDS + 1), OTHER_CPU], stdout=subprocess.PIPE, text=True)
    time.sleep(0.7)
    began, first = time.monotonic(), delivered(m)
    time.sleep(SECONDS)
    rate = (delivered(m) - first) / (time.monotonic() - began) / 1e6
    tool.communicate()
    return rate


def compare(title, sink, size):
    m = Machine()
    if sink:
        drop = subprocess.Popen([*m.b.prefix(), harness.OPTIONS.drop, "b0"],
                                stdout=subprocess.PIPE, text=True)
        expect(drop.stdout.readline() == "ready\n", "no XDP sink")
    else:
        m.b.run("ethtool", "-K", "b0", "gro", "on")  # NAPI
    results = {}
    for _ in range(harness.OPTIONS.rounds or 3):
        for name, start in candidates(fast=True).items():
            forwarder = start()
            results.setdefault(name, []).append(measure(m, size))
            forwarder.end()
    middle = table(f"{title}, {size} B", results, "Mpps delivered")
    ours = max(middle["culvert"], middle["culvert busy"])
    for name, value in middle.items():
        if not name.startswith("culvert"):
            say(f"  culvert is {ours / value if value else 0:.2f} times {name}, its fast path "
                f"{middle['culvert fast path'] / value if value else 0:.2f} times")


def small():
    """64 B, dropped at the far end by XDP"""
    compare("XDP sink", True, 64)


def small_stack():
    """64 B, into the far end's stack"""
    compare("stack sink", False, 64)


def large():
    """1500 B, dropped at the far end by XDP"""
    compare("XDP sink", True, 1500)


main(small, small_stack, large)
