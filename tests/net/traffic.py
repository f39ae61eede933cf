"""What hosts send: ping, TCP in bulk both ways at once, UDP of every sort; with default offloads."""
import os
import socket
import threading
import time

import harness
from harness import LONG, PATIENCE, Machine, expect, forwarder, main, say, wait_for

SECONDS = 60 if LONG else 3
BLOCK = os.urandom(1 << 20)
PATTERN = BLOCK * 2  # any slice of up to a block, from any place in the block
ADDRESS = {socket.AF_INET: "10.77.0.{}", socket.AF_INET6: "fd77::{}"}


def checksum_errors(host):
    """Every counter of bad checksums or headers that the host's kernel keeps."""
    found = {}
    with open(f"/proc/{host.pid}/net/snmp") as f:
        lines = f.read().splitlines()
    for names, values in zip(lines[::2], lines[1::2]):
        for name, value in zip(names.split()[1:], values.split()[1:]):
            if "CsumErrors" in name or name == "InHdrErrors":
                found[names.split(":")[0] + name] = int(value)
    with open(f"/proc/{host.pid}/net/snmp6") as f:
        for line in f:
            name, value = line.split()
            if "CsumErrors" in name or name == "Ip6InHdrErrors":
                found[name] = int(value)
    return found


class Transfer:
    """One TCP connection from a host to another: a known stream for some seconds, checked."""

    def __init__(self, source, target, family, number):
        self.name = f"{source.name}->{target.name} {family.name}"
        self.error, self.sent, self.received = None, 0, 0
        listener = target.socket(family, socket.SOCK_STREAM)
        listener.bind(("", 0))
        listener.listen(1)
        listener.settimeout(PATIENCE)
        self.listener = listener
        self.client = source.socket(family, socket.SOCK_STREAM)
        self.client.settimeout(PATIENCE)
        self.address = (ADDRESS[family].format(number), listener.getsockname()[1])
        self.threads = [threading.Thread(target=self.guard, args=(f,), daemon=True)
                        for f in (self.receive, self.send)]
        for t in self.threads:
            t.start()

    def guard(self, body):
        try:
            body()
        except (OSError, harness.Failure) as e:
            self.error = self.error or f"{self.name}: {body.__name__}: {e}"

    def send(self):
        self.client.connect(self.address)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            self.client.sendall(BLOCK)
            self.sent += len(BLOCK)
        self.client.shutdown(socket.SHUT_WR)
        expect(self.client.recv(1) == b"", "the receiver spoke")

    def receive(self):
        s, _ = self.listener.accept()
        s.settimeout(PATIENCE)
        buffer = memoryview(bytearray(256 << 10))
        while True:
            n = s.recv_into(buffer)
            if n == 0:
                break
            at = self.received % len(BLOCK)
            expect(bytes(buffer[:n]) == PATTERN[at:at + n],  # memcmp
                   f"bytes differ near {self.received}")
            self.received += n
        s.close()

    def finish(self):
        for t in self.threads:
            t.join(SECONDS + 2 * PATIENCE)
        self.listener.close()
        self.client.close()
        expect(not self.error, self.error)
        expect(self.received == self.sent and self.sent > 0,
               f"{self.name}: sent {self.sent}, received {self.received}")


def pings(m):
    """Small, full and fragmented, both families, both ways."""
    for host, far in ((m.a, 2), (m.b, 1)):
        for address in (f"10.77.0.{far}", f"fd77::{far}"):
            for size in (0, 56, 1400, 4000):
                host.run("ping", "-n", "-q", "-c", 5, "-i", 0.02, "-W", 20, "-s", size, address)


def udp(m):
    """Datagrams there and back, from empty to the largest, in fragments where they need it."""
    for family in (socket.AF_INET, socket.AF_INET6):
        one = m.a.socket(family, socket.SOCK_DGRAM)
        two = m.b.socket(family, socket.SOCK_DGRAM)
        for s in (one, two):
            s.bind(("", 0))
            s.settimeout(20)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for size in (0, 1, 2, 17, 18, 19, 100, 511, 1000, 1451, 1452, 1472, 1473, 3000, 9000, 60000):
            data = BLOCK[size:2 * size]
            one.sendto(data, (ADDRESS[family].format(2), two.getsockname()[1]))
            got, peer = two.recvfrom(65536)
            expect(got == data, f"{family.name}: {size} bytes came as {len(got)}")
            two.sendto(got, peer)
            expect(one.recvfrom(65536)[0] == data, f"{family.name}: {size} bytes on the way back")
        one.close()
        two.close()


def mixed():
    """ping, UDP, then TCP in bulk both ways over both families at once"""
    m = Machine(ipv6=True, addresses=True)
    if harness.OPTIONS.mode == "skb":
        # A veth gives generic XDP what the sender's stack left unsegmented, up to 64 KiB (native
        # XDP makes the kernel take the peer's segmentation away): only the sender can help it.
        for host, device in ((m.a, "a0"), (m.b, "b0")):
            host.run("ethtool", "-K", device, "tso", "off", "gso", "off", "tx-udp-segmentation", "off")
    f = forwarder(m.ports)
    m.reachable()
    pings(m)
    udp(m)
    say("ping and UDP are good")
    transfers = [Transfer(a, b, family, number) for family in ADDRESS
                 for a, b, number in ((m.a, m.b, 2), (m.b, m.a, 1))]
    for t in transfers:
        t.finish()
    for t in transfers:
        say(f"{t.name}: {t.sent * 8 / SECONDS / 1e6:.0f} Mbit/s")
    for host in m.hosts:
        bad = {k: v for k, v in checksum_errors(host).items() if v}
        expect(not bad, f"host {host.name} counted {bad}")
    if harness.OPTIONS.engine == "af_xdp":
        for port in ("wan", "lan"):
            expect(f.total(port, "checksums_completed") > 0,
                   f"{port}: TCP from veth has partial checksums, none was completed")
    f.end()
    m.unchanged()


def offloads_off():
    """the same without transmit checksum offload and segmentation on the hosts"""
    m = Machine(ipv6=True, addresses=True)
    for host, device in ((m.a, "a0"), (m.b, "b0")):
        host.run("ethtool", "-K", device, "tx", "off", "tso", "off", "gso", "off")
    f = forwarder(m.ports)
    m.reachable()
    udp(m)
    transfer = Transfer(m.a, m.b, socket.AF_INET, 2)
    transfer.finish()
    for host in m.hosts:
        bad = {k: v for k, v in checksum_errors(host).items() if v}
        expect(not bad, f"host {host.name} counted {bad}")
    f.end()
    m.unchanged()


def vlan_devices():
    """VLAN devices on the hosts, tags in the frames"""
    m = Machine()
    if m.a.run("ip", "link", "add", "link", "a0", "name", "v1", "type", "vlan", "id", 1,
               check=False).returncode != 0:
        say("left out: this kernel has no VLAN devices (8021q)")
        return
    for host, device, i in ((m.a, "a0", 1), (m.b, "b0", 2)):
        # A veth hands tags over beside the frame unless it is told not to; XDP can't see those.
        host.run("ethtool", "-K", device, "txvlan", "off", "rxvlan", "off")
        host.run("ip", "link", "add", "link", device, "name", "v100", "type", "vlan", "id", 100)
        host.run("ip", "addr", "add", f"10.77.1.{i}/24", "dev", "v100")
        host.run("ip", "link", "set", "v100", "up")
    f = forwarder(m.ports)
    wait_for("VLAN 100 crosses", lambda: m.a.run("ping", "-n", "-c1", "-W1", "10.77.1.2",
                                                 check=False).returncode == 0)
    m.a.run("ping", "-n", "-q", "-c", 20, "-i", 0.02, "-W", 20, "-s", 1400, "10.77.1.2")
    f.end()
    m.unchanged()


if __name__ == "__main__":
    main(mixed, offloads_off, vlan_devices)
