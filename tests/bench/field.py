"""The forwarders that the speed tests set side by side, between p0 and p1, each on one CPU."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "net"))
import harness  # noqa: E402
from harness import Bridge, Culvert, expect, link, run, say, wait_for  # noqa: E402

CPU = str(max(os.sched_getaffinity(0)))
OTHER_CPU = str(min(os.sched_getaffinity(0)))


class Ours:
    """culvert, one worker."""

    def __init__(self, busy=False, fast=False):
        self.fast = fast
        lines = ", busy: true" if busy else ""
        self.c = Culvert("ports:\n" + "".join(
            f"  - {{ name: {p}, device: {p}, mode: copy{lines} }}\n" for p in ("p0", "p1")) +
            f"forward:\n  patch: [[p0, p1]]\n  fast_path: {'auto' if fast else 'off'}\n",
            wrapper=("taskset", "-c", CPU))
        if fast:
            wait_for("fast path", lambda: self.state()["on"])

    def state(self):
        return self.c.port("p0")["fast_path"]

    def end(self):
        if self.fast:
            s = self.state()
            expect(s["on"] and s["frames"] > 0, f"the fast path did not carry the frames: {s}")
        self.c.end()


class Kernel:
    """The kernel's bridge; GRO gives a veth the NAPI without which it takes no redirected frames."""

    def __init__(self):
        for p in ("p0", "p1"):
            run("ethtool", "-K", p, "gro", "on")
        self.b = Bridge("p0", "p1")

    def end(self):
        self.b.end()
        for p in ("p0", "p1"):
            run("ethtool", "-K", p, "gro", "off")


class Testpmd:
    """DPDK's forwarder over its AF_XDP driver, forwarding as it comes (io)."""

    def __init__(self, options=""):
        free = int(open("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read())
        memory = ["--in-memory"] if free >= 300 else ["--no-huge"]
        devices = [x for i, p in enumerate(("p0", "p1"))
                   for x in ("--vdev", f"net_af_xdp{i},iface={p}{options}")]
        self.log = open(f"{harness.RUN_DIR}/testpmd.log", "w+")
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", "dpdk-testpmd", "--lcores", f"0@{OTHER_CPU},1@{CPU}", "--no-pci", *memory,
             "-m", "512", *devices, "--", "--forward-mode=io", "--auto-start",
             "--total-num-mbufs=32768", "--no-lsc-interrupt"],
            stdin=subprocess.PIPE, stdout=self.log, stderr=self.log)
        try:
            wait_for("testpmd forwards", self.started)
        except harness.Failure:
            raise harness.Failure("testpmd does not start:\n" + self.text()) from None

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def started(self):
        if self.process.poll() is not None:
            raise harness.Failure("testpmd ended:\n" + self.text())
        return "Press enter to exit" in self.text()

    def end(self):
        self.process.stdin.close()
        self.process.wait(60)
        for p in ("p0", "p1"):
            wait_for("testpmd's program gone", lambda: "xdp" not in link(p))


def candidates(fast=False):
    """name: how to start it; those that this machine has. fast: the far end of p1 polls, so that
    culvert's fast path can be had."""
    found = {"culvert": Ours, "culvert busy": lambda: Ours(True)}
    if fast:
        found["culvert fast path"] = lambda: Ours(fast=True)
    found["bridge"] = Kernel
    if any(os.access(os.path.join(d, "dpdk-testpmd"), os.X_OK)
           for d in os.environ["PATH"].split(":")):
        found["testpmd"] = Testpmd
        found["testpmd busy_budget=0"] = lambda: Testpmd(",busy_budget=0")
    else:
        say("no dpdk-testpmd here (package dpdk): measured beside the kernel's bridge only")
    return found


def table(title, results, unit, best=max):
    """results: name -> list of figures, one a round."""
    middle = {k: sorted(v)[len(v) // 2] for k, v in results.items() if v}
    say(f"{title} ({unit}; median and every round)")
    for name, value in middle.items():
        say(f"  {name:24} {value:8.3f}   " + " ".join(f"{x:.3f}" for x in results[name]))
    return middle


__all__ = ["candidates", "table", "expect", "CPU", "OTHER_CPU"]
