"""DPDK's ports on PCI devices, in a guest with an IOMMU (tests/vm/run --iommu): bound as doctor
says, used, taken away under culvert, and given back to the kernel."""
import json
import os
import re
import socket
import subprocess
import sys
import time

import frames
import harness
from dpdk_manners import cpu_s, descriptors
from harness import (PCI, Culvert, Host, Machine, expect, link, main, nics_name, run, say, veth,
                     wait_for)
from traffic import Transfer, checksum_errors

BACK = {}  # device: the command that gives it back to the kernel, as doctor printed it
ROUNDS = 3
PATIENCE_S = 30


def shell(command):
    """As an operator enters it. dpdk-devbind.py ends with 0 whatever happened."""
    done = run("sh", "-c", command)
    say(f"# {command}")
    for line in (done.stdout + done.stderr).splitlines():
        say(f"  {line}")


def driver(address):
    try:
        return os.path.basename(os.readlink(f"/sys/bus/pci/devices/{address}/driver"))
    except OSError:
        return ""


def advice(subject):
    """What doctor says of a subject, and its remedy."""
    done = run(harness.OPTIONS.culvert, "doctor", "--json", check=False)
    found = [c for c in json.loads(done.stdout)["checks"] if c["subject"] == subject]
    expect(len(found) == 1, f"doctor has not one line of {subject}: {done.stdout}")
    return found[0]["text"], found[0]["remedy"]


def bind(device):
    """To vfio-pci, by nothing but the commands that doctor prints."""
    path = os.path.realpath(f"/sys/class/net/{device}/device")
    address = re.findall(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", path)[-1]
    was = driver(address)
    run("ip", "link", "set", device, "up")  # a route makes dpdk-devbind.py refuse
    run("ip", "addr", "add", f"192.0.2.{len(PCI) + 1}/24", "dev", device)
    text, remedy = advice(address)
    if remedy == "modprobe vfio-pci":
        expect(f"driver {was}, interface {device}" in text, text)
        shell(remedy)
        text, remedy = advice(address)
    expect(f"binding it takes {device} from the kernel" in text, text)
    there, _, back = remedy.partition("; back: ")
    shell(there)
    expect(driver(address) == "vfio-pci" and not link(device), f"{there}: it has {driver(address)}")
    PCI[device], BACK[device] = address, back
    text, _ = advice(address)
    expect(f"dpdk:{address}" in text and text.partition("back: ")[2] == back,
           f"not the way back by {was}: {text}")


def bound():
    """doctor's commands bind both ports to vfio-pci, up and with addresses as they are"""
    for device in ("p0", "p1"):
        bind(device)


def need_bound():
    if not PCI:
        bound()


def flows():
    """numbered frames of 16 flows cross unchanged and in order; without huge pages"""
    need_bound()
    frames.in_order()


def huge_pages(what):
    with open(f"/sys/kernel/mm/hugepages/hugepages-2048kB/{what}_hugepages") as f:
        return int(f.read())


def reserve_huge_pages():
    text, remedy = advice("huge pages")
    expect("none reserved" in text, text)
    shell(remedy)


def need_huge_pages():
    """Without, each first device has a GiB of memory pinned for it: seconds under emulation."""
    if not huge_pages("nr"):
        reserve_huge_pages()


def flows_with_huge_pages():
    """likewise with as many huge pages as doctor says; the parts after this one have them, too"""
    need_bound()
    reserve_huge_pages()
    f = Culvert(config(wan="p0", lan="p1"), args=("--log", "debug"))
    expect("dpdk: started with huge pages" in f.log(), f.log())
    f.end()
    flows()


def config(**ports):
    """name="p0" or a device's name; the first two are patched, and the next two."""
    names = list(ports)
    lines = ["workers: 1", "ports:"]
    for name, device in ports.items():
        device = f"dpdk:{PCI[device]}" if device in PCI else device
        lines.append(f'  - {{ name: {name}, device: "{device}" }}')
    pairs = ", ".join(f"[{a}, {b}]" for a, b in zip(names[::2], names[1::2]))
    return "\n".join(lines) + f"\nforward:\n  patch: [{pairs}]\n"


def told():
    """status: engine, mode, link, queues, counters; an idle port sleeps"""
    need_bound()
    m = Machine(addresses=True)
    f = Culvert(config(wan="p0", lan="p1"))
    m.reachable()
    for name in ("wan", "lan"):
        p = f.port(name)
        got = p["engine"], p["mode"], p["link"], len(p["queues"])
        expect(got == ("dpdk", "dpdk", "up", 1), p)
        expect(not p["reason"], p["reason"])
        kernel = p["queues"][0]["kernel"]
        expect(kernel["rx_packets"] > 0 and kernel["tx_packets"] > 0, kernel)
        expect(0 < kernel["mbufs_in_use"] < kernel["mbufs"], kernel)
    run_s, start = cpu_s(f)[0], time.monotonic()
    m.a.run("ping", "-q", "-n", "-c", 10, "-i", 0.2, "-W", 20, "10.77.0.2")
    share = (cpu_s(f)[0] - run_s) / (time.monotonic() - start)
    say(f"idle but for pings: {share:.2f} of a processor")
    expect(share < 0.5, "it polls: the device's interrupts are not used")
    f.end()


def beside_af_xdp():
    """a veth by AF_XDP, its far end by PCI: no copy, and the device completes the checksums"""
    need_bound()
    m = Machine(ipv6=True, addresses=True)
    c = Host("c")
    veth("v0", c, "c0", ipv6=True)
    c.run("ethtool", "-K", "c0", "tso", "off", "gso", "off")
    c.run("ip", "addr", "add", "10.77.0.1/24", "dev", "c0")
    c.run("ip", "addr", "add", "fd77::1/64", "dev", "c0", "nodad")
    f = Culvert(config(wan="v0", lan="p1"))
    wait_for("frames cross", lambda: c.run("ping", "-c1", "-W1", "-n", "10.77.0.2",
                                           check=False).returncode == 0)
    before = [checksum_errors(h) for h in (c, m.b)]
    for family in (socket.AF_INET, socket.AF_INET6):
        for t in (Transfer(c, m.b, family, 2), Transfer(m.b, c, family, 1)):
            t.finish()
            say(f"{t.name}: {t.sent >> 10} KiB")
    expect([checksum_errors(h) for h in (c, m.b)] == before, "a host counted bad checksums")
    expect(f.total("wan", "checksums_offloaded") > 100, "nothing was left to the device")
    expect(f.total("wan", "checksums_completed") == 0, "the worker completed checksums, too")
    for name in ("wan", "lan"):
        expect(f.total(name, "rx_frames") > f.total(name, "copied") == 0, f"{name}: copies")
    c.close()
    f.end()


def pair(name, device, i):
    """Two hosts joined over veths, by which can be seen that others go on."""
    h = Host(name)
    veth(device, h, "e0")
    h.run("ip", "addr", "add", f"10.78.0.{i}/24", "dev", "e0")
    return h


class Others:
    """Two hosts whose frames cross all the while: how long none did."""

    def __init__(self, m):
        self.m, self.hosts = m, [pair("c", "v0", 1), pair("d", "v1", 2)]
        m.hosts += self.hosts

    def start(self):
        self.ping = subprocess.Popen(
            [*self.hosts[0].prefix(), "ping", "-n", "-i", "0.05", "-W", "20", "-O", "10.78.0.2"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end(self):
        self.ping.send_signal(2)
        said = self.ping.communicate(timeout=60)[0]
        sent, got = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", said).groups())
        expect(got > 20 and got >= sent - 1, f"the other ports' frames did not go on:\n{said}")
        say(f"others: {got} of {sent} pings")


def cycle(f, m, others, count):
    for _ in range(count):
        f.ask("attach", f"dpdk:{PCI['p0']}", f"dpdk:{PCI['p1']}")
        m.reachable()
        f.check_law()
        f.ask("detach", f"dpdk:{PCI['p0']}", f"dpdk:{PCI['p1']}")
        others.hosts[0].run("ping", "-q", "-n", "-c", 3, "-i", 0.02, "-W", 20, "10.78.0.2")


def live():
    """attached and detached while other ports forward; nothing piles up"""
    need_bound()
    need_huge_pages()
    m = Machine(addresses=True)
    others = Others(m)
    for devices in (("v0", "v1"), ("v0", "dpdk:net_af_packet1,iface=v1")):
        f = Culvert(config(x=devices[0], y=devices[1]))
        others.start()
        cycle(f, m, others, 1)
        before = descriptors(f)
        cycle(f, m, others, ROUNDS)
        expect(descriptors(f) == before, f"descriptors: {before} -> {descriptors(f)}")
        others.end()
        f.end()


def taken(f, m, others, how, name):
    """p0 is taken away by a command that waits until culvert lets it go."""
    others.start()
    m.reachable()
    say(f"# {how}")
    start = time.monotonic()
    taker = subprocess.Popen(["sh", "-c", how])
    wait_for("the port is closed", lambda: f.port(name)["mode"] == "closed", PATIENCE_S)
    expect(taker.wait(PATIENCE_S) == 0, f"{how}: {taker.returncode}")
    say(f"after {time.monotonic() - start:.1f} s: {f.port(name)['reason']}; "
        f"{f.port(name)['remedy']}")
    lines = [x for x in f.log().splitlines() if " warn: " in x or " error: " in x]
    expect(len(lines) == 1 and PCI["p0"] in lines[0] and "; " in lines[0], lines)
    expect(f.port(name)["link"] == "gone", f.port(name))
    f.check_law()
    others.end()


def unbound():
    """unbound from vfio-pci under culvert: it lets go, others go on; bound again, it is back"""
    need_bound()
    need_huge_pages()
    m = Machine(addresses=True)
    others = Others(m)
    f = Culvert(config(wan="p0", lan="p1", x="v0", y="v1"))
    taken(f, m, others, BACK["p0"], "wan")
    expect(driver(PCI["p0"]) not in ("vfio-pci", ""), "the kernel has not got it back")
    wait_for("the device's interface", lambda: net_of(PCI["p0"]))
    shell(f"dpdk-devbind.py --bind=vfio-pci {PCI['p0']}")
    wait_for("the port is open again", lambda: f.port("wan")["mode"] == "dpdk")
    m.reachable()
    f.end()


def unplugged():
    """QEMU unplugs p0 under culvert, and plugs it in again: the kernel has it then"""
    need_bound()
    need_huge_pages()
    m = Machine(addresses=True)
    others = Others(m)
    f = Culvert(config(wan="p0", lan="p1", x="v0", y="v1"))
    path = f"/sys/bus/pci/devices/{PCI['p0']}"
    qmp = json.dumps({"execute": "device_del", "arguments": {"id": "p0"}})
    taken(f, m, others, f"echo '\n@qmp {qmp}'; while [ -e {path} ]; do sleep 0.1; done", "wan")
    wait_for("the reason", lambda: "there is no PCI device" in f.port("wan")["reason"])
    qmp = json.dumps({"execute": "device_add", "arguments": {
        "driver": harness.OPTIONS.replug, "id": "p0", "netdev": "net-p0", "bus": "root-p0",
        "mac": "52:54:00:00:00:00"}})
    print(f"\n@qmp {qmp}", flush=True)
    wait_for("the device's interface", lambda: net_of(PCI["p0"]))
    wait_for("the reason", lambda: "belongs to the kernel's driver" in f.port("wan")["reason"])
    shell(f.port("wan")["remedy"].partition("then: ")[2])
    wait_for("the port is open again", lambda: f.port("wan")["mode"] == "dpdk")
    m.reachable()
    f.end()


def net_of(address):
    for d, names, _ in os.walk(f"/sys/bus/pci/devices/{address}"):
        if os.path.basename(d) == "net" and names:
            return names[0]
    return None


def given_back():
    """doctor's commands give both to the kernel again, where frames cross as before"""
    need_bound()
    expect(huge_pages("free") == huge_pages("nr"), "huge pages are not given back")
    for device, address in list(PCI.items()):
        shell(BACK.pop(device))
        wait_for(f"{address} has an interface", lambda: net_of(address))
        del PCI[device]
    nics_name()
    m = Machine(addresses=True)
    bridge = harness.Bridge("p0", "p1")
    m.reachable()
    lanes = m.frames("flows", "--both", "--flows", 4, "--count", 50)
    expect(all(x["received"] == x["sent"] > 0 for x in lanes), lanes)
    bridge.end()


USED = (bound, flows, flows_with_huge_pages, told, beside_af_xdp)
TAKEN = (bound, live, unbound, unplugged)

if __name__ == "__main__":
    main(*(TAKEN if "--replug" in sys.argv else USED), given_back)
