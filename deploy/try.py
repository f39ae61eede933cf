#!/usr/bin/env python3
"""The inside of deploy/try: two hosts, culvert between them, traffic, and what came of it.

Runs in network, mount and process namespaces of its own; its network namespace forwards.
"""
import json
import os
import signal
import subprocess
import sys
import time

PATIENCE = 60  # seconds for what takes one on an idle machine
HOSTS = {"west": 1, "east": 2}
SOCKET = "/run/culvert/control.sock"
failures = []


def title(text):
    print(f"\n== {text}", flush=True)


def say(text):
    print(f"   {text}", flush=True)


def check(good, text):
    """A line of the report; what is not good makes deploy/try fail."""
    say(text if good else f"NOT AS IT SHOULD BE: {text}")
    if not good:
        failures.append(text)


def run(*command, timeout=PATIENCE, must=True):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True,
                          timeout=timeout, check=False, stdin=subprocess.DEVNULL)
    if must and done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return done


def on(host):
    return ["nsenter", f"--net=/run/netns/{host}"]


def machine():
    """Private /run and /sys, so that names and mounts of ours are seen by nobody else."""
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    os.makedirs("/run/netns")
    os.makedirs("/run/culvert")
    run("mount", "-t", "sysfs", "sysfs", "/sys")
    run("mount", "-t", "bpf", "bpf", "/sys/fs/bpf", must=False)
    run("ip", "link", "set", "lo", "up")


def hosts():
    """host west -- port west [ this namespace ] port east -- host east; offloads stay as they are."""
    for host, number in HOSTS.items():
        run("ip", "netns", "add", host)
        run("ip", "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", host)
        # The forwarder says nothing of its own on its ports.
        run("sysctl", "-qw", f"net.ipv6.conf.{host}.disable_ipv6=1", must=False)
        run("ip", "link", "set", host, "up")
        run(*on(host), "ip", "link", "set", "lo", "up")
        run(*on(host), "ip", "link", "set", "eth0", "up")
        run(*on(host), "ip", "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
        run(*on(host), "ip", "address", "add", f"fd77::{number}/64", "dev", "eth0", "nodad")
    say("host west (10.77.0.1, fd77::1) -- culvert -- host east (10.77.0.2, fd77::2)")


class Daemon:
    """culvert in the background, its log in a file."""

    def __init__(self, name, *command):
        self.path = f"/run/{name}.log"
        with open(self.path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL)

    def lines(self):
        with open(self.path, encoding="utf-8", errors="replace") as log:
            return [line.rstrip() for line in log]

    def wait_ready(self):
        end = time.monotonic() + PATIENCE
        while not any(line.endswith("ready") for line in self.lines()):
            if self.process.poll() is not None or time.monotonic() > end:
                print("\n".join(self.lines()))
                raise SystemExit("culvert did not get ready; its log is above")
            time.sleep(0.02)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def server():
    """An iperf3 on host east, once it listens."""
    process = subprocess.Popen([*on("east"), "iperf3", "-s"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    end = time.monotonic() + PATIENCE
    while "5201" not in run(*on("east"), "ss", "-Hltn", "sport = :5201").stdout:
        if time.monotonic() > end:
            raise SystemExit("iperf3 does not listen on host east")
        time.sleep(0.05)
    return process


def ping(source, target, size=56):
    done = run(*on(source), "ping", "-q", "-c", 50, "-i", 0.02, "-s", size, "-W", 10, target,
               must=False)
    tail = [line for line in done.stdout.splitlines() if "transmitted" in line or "rtt" in line]
    check(" 0% packet loss" in done.stdout, f"ping {source} -> {target}: {'; '.join(tail)}")


def iperf(*args):
    """The end part of an iperf3 report from host west, or None after saying why."""
    done = run(*on("west"), "iperf3", "-J", "--connect-timeout", 20000, *args, must=False,
               timeout=2 * PATIENCE)
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        report = {"error": done.stdout + done.stderr}
    if "error" in report:
        check(False, f"iperf3 {' '.join(map(str, args))}: {report['error']}")
        return None
    return report["end"]


def tcp(text, *args):
    end = iperf("-t", 4, *args)
    if end:
        got, sent = end["sum_received"], end["sum_sent"]
        check(got["bytes"] > 0, f"TCP {text}: {got['bits_per_second'] / 1e9:.2f} Gbit/s, "
              f"{got['bytes'] / 1e6:.0f} MB, {sent.get('retransmits', 0)} retransmits")


def udp(size):
    end = iperf("-c", "10.77.0.2", "-u", "-t", 2, "-l", size, "-b", f"{size * 8 * 1000}")
    if end:
        total = end["sum"]
        # A receiver that is late on a busy machine drops at its own socket.
        check(total["packets"] > 0 and total["lost_packets"] < total["packets"] / 10,
              f"UDP {size:5d} bytes: {total['packets']} sent, {total['lost_packets']} lost")


def status(culvert):
    return json.loads(run(culvert, "status", "--json", "--socket", SOCKET).stdout)


def show_ports(seen):
    for port in seen["ports"]:
        why = f": {port['reason']}" if port.get("reason") else ""
        helps = f" (what helps: {port['remedy']})" if port.get("remedy") else ""
        say(f"port {port['name']}: engine {port['engine']}, mode {port['mode']}{why}{helps}")


def total(seen, key):
    return sum(queue[key] for port in seen["ports"] for queue in port["queues"])


def show_rates(before, after, seconds):
    for a, b in zip(before["ports"], after["ports"]):
        def rate(key):
            return sum(q[key] for q in b["queues"]) - sum(q[key] for q in a["queues"])
        say(f"port {b['name']}: in {rate('rx_frames') / seconds / 1e3:.1f} kframe/s, "
            f"{rate('rx_bytes') * 8 / seconds / 1e9:.2f} Gbit/s; out "
            f"{rate('tx_frames') / seconds / 1e3:.1f} kframe/s, "
            f"{rate('tx_bytes') * 8 / seconds / 1e9:.2f} Gbit/s")


def counters(seen, kind):
    """Those of one kind that are not zero, as text."""
    counts = {}
    for port in seen["ports"]:
        for queue in port["queues"]:
            for reason, count in queue.get(kind, {}).items():
                if count:
                    name = f"{port['name']} {reason}"
                    counts[name] = counts.get(name, 0) + count
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def show_frames(culvert):
    """The frame law: every slot is somewhere, and every frame that came in left or was counted."""
    seen = status(culvert)
    for frames in seen["frames"]:
        held = (frames["free"] + frames["fill"] + frames["worker_held"] + frames["tx"]
                + frames["driver"])
        check(frames["lost"] == 0, f"worker {frames['worker']}: {frames['slots']} slots = "
              f"{frames['free']} free + {frames['fill']} fill + {frames['worker_held']} in hand "
              f"+ {frames['tx']} sending (read while it runs: {held}); {frames['lost']} lost")
    say(f"{total(seen, 'rx_frames')} frames in, {total(seen, 'tx_frames')} out, "
        f"{total(seen, 'checksums_completed')} checksums completed; drops: "
        + counters(seen, "drops"))
    say("the kernel's counters: " + counters(seen, "kernel"))


def show_checksums():
    for host in HOSTS:
        out = run(*on(host), "nstat", "-asz", "TcpInCsumErrors", "UdpInCsumErrors",
                  "Udp6InCsumErrors").stdout
        counts = {f[0]: int(f[1]) for f in map(str.split, out.splitlines()) if len(f) > 1
                  and f[1].isdigit()}
        check(len(counts) == 3 and not any(counts.values()),
              f"checksum errors seen by host {host}: {sum(counts.values())}")


def forward(culvert):
    title("forwarding: culvert run west east")
    daemon = Daemon("forward", culvert, "run", "--socket", SOCKET, "west", "east")
    try:
        daemon.wait_ready()
        first = status(culvert)
        show_ports(first)
        title("both ways, IPv4 and IPv6")
        for source, number in (("west", 2), ("east", 1)):
            ping(source, f"10.77.0.{number}")
            ping(source, f"fd77::{number}")
        ping("west", "10.77.0.2", 1472)
        title("TCP in bulk")
        iperf3 = server()
        before, at = status(culvert), time.monotonic()
        tcp("west -> east", "-c", "10.77.0.2")
        tcp("east -> west", "-c", "10.77.0.2", "-R")
        tcp("west -> east, IPv6", "-c", "fd77::2")
        show_rates(before, status(culvert), time.monotonic() - at)
        title("UDP at several sizes, 1000 a second")
        for size in (16, 64, 256, 512, 1024, 1400, 1472):
            udp(size)
        iperf3.kill()
        iperf3.wait()
        title("accounting")
        show_frames(culvert)
        show_checksums()
    finally:
        code = daemon.stop()
    check(code == 0, f"stopped: exit code {code}")
    for port in HOSTS:
        check("xdp" not in run("ip", "link", "show", port).stdout,
              f"port {port}: no XDP program left")


CONFIG = """
ports:
  - { name: west, device: west }
  - { name: east, device: east }
forward:
  patch: [[west, east]]
relay:
  - { name: bulk, listen: "tcp:10.77.0.254:5201", to: ["tcp:10.77.0.2:5201"], when: fallback }
control: { socket: /run/culvert/control.sock }
"""


def fallback(culvert):
    title("the fallback: the same binary where bpf(2) is refused")
    # The machine between now has an address that both hosts reach, one link each.
    run("ip", "address", "add", "10.77.0.254/32", "dev", "lo")
    for host, number in HOSTS.items():
        run("ip", "route", "add", f"10.77.0.{number}/32", "dev", host, "src", "10.77.0.254")
    with open("/run/fallback.yaml", "w", encoding="utf-8") as config:
        config.write(CONFIG)
    daemon = Daemon("fallback", "setpriv", "--bounding-set", "-bpf,-sys_admin,-perfmon", culvert,
                    "run", "--config", "/run/fallback.yaml")
    try:
        daemon.wait_ready()
        for line in daemon.lines():
            say(line)
        seen = status(culvert)
        check(seen["engine"] == "relay", f"engine {seen['engine']}: {seen['fallback']}")
        iperf3 = server()
        tcp("west -> relay -> east", "-c", "10.77.0.254")
        tcp("east -> relay -> west", "-c", "10.77.0.254", "-R")
        iperf3.kill()
        iperf3.wait()
        for route in status(culvert)["relay"]:
            say(f"route {route['name']}: {route['connections']} connections, "
                f"{route['bytes_in'] / 1e6:.0f} MB in, {route['bytes_out'] / 1e6:.0f} MB out, "
                f"{route['spliced'] / 1e6:.0f} MB spliced, {route['copied'] / 1e6:.0f} MB copied")
    finally:
        code = daemon.stop()
    check(code == 0, f"stopped: exit code {code}")


def main():
    culvert = os.path.abspath(sys.argv[1])
    title("two hosts and a machine between them")
    machine()
    hosts()
    forward(culvert)
    fallback(culvert)
    title("done")
    for failure in failures:
        say(f"failed: {failure}")
    say("everything arrived; nothing is left behind" if not failures
        else f"{len(failures)} things were not as they should be; nothing is left behind")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
