#!/usr/bin/env python3
"""Nanoseconds a packet: our worker loop over mem rings, and testpmd's io loop over net_null."""
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

SECONDS = 6  # of testpmd


def ours(program):
    done = subprocess.run([program], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        sys.exit(f"worker_loop: {done.stderr.strip()}")
    return [float(x) for x in done.stdout.split()]


def testpmd():
    """ns a packet, or the reason why there is no figure."""
    program = shutil.which("dpdk-testpmd")
    if not program:
        return None, "not installed: apt-get install dpdk"
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        return None, "testpmd wants two CPUs (one only waits), here is one"
    prefix = f"culvert-bench-{os.getpid()}"
    command = [program, "--no-huge", "-m", "256", "--no-pci", "--file-prefix", prefix,
               "--vdev", "net_null0", "--vdev", "net_null1", "-l", f"{cpus[0]},{cpus[1]}", "--",
               "--forward-mode=io", "--no-mlockall", "--total-num-mbufs=16384",
               "--stats-period", "1"]
    with tempfile.TemporaryFile("w+") as out:
        peer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out,
                                stderr=subprocess.STDOUT)
        try:
            time.sleep(SECONDS)
            peer.send_signal(signal.SIGINT)
            peer.wait(timeout=30)
        finally:
            if peer.poll() is None:
                peer.kill()
                peer.wait()
        out.seek(0)
        text = out.read()
    # Figures of the port pair of one period follow each other; the first period starts at zero.
    pps = [int(x) for x in re.findall(r"Tx-pps:\s+(\d+)", text)]
    periods = [a + b for a, b in zip(pps[0::2], pps[1::2]) if a + b > 0][1:]
    if not periods:
        return None, "no figures in its output: " + (text.strip().splitlines() or ["nothing"])[-1]
    return 1e9 / statistics.median(periods), ""


def main():
    median, best, worst = ours(sys.argv[1])
    print(f"culvert worker loop, mem, 64 B patch: {median:.2f} ns/packet "
          f"({1e3 / median:.1f} Mpps; best {best:.2f}, worst {worst:.2f})")
    peer, why = testpmd()
    if peer is None:
        print(f"dpdk-testpmd io, net_null, 64 B:      no figure ({why})")
        return
    print(f"dpdk-testpmd io, net_null, 64 B:      {peer:.2f} ns/packet ({1e3 / peer:.1f} Mpps)")
    print(f"testpmd / culvert: {peer / median:.2f}")


main()
