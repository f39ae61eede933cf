"""DPDK ports between hosts: over taps, packet sockets, memif, vhost, and beside AF_XDP."""
import re
import signal
import socket

import traffic
from harness import Culvert, Machine, clear, expect, link, main, run, say, settings, skip, wait_for
from traffic import ADDRESS, Transfer, checksum_errors, pings, udp

SIZES_WHOLE = (0, 56, 1400)  # pings that are not fragmented
STOP_FRAMES = 500  # a packet socket's ring has 512 slots

traffic.SECONDS = min(traffic.SECONDS, 1)  # six times; bulk is the ordinary suites' matter


def config(wan, lan):
    return f"""ports:
  - {{ name: wan, device: "{wan}" }}
  - {{ name: lan, device: "{lan}" }}
forward:
  patch: [[wan, lan]]
"""


def packet(device, number=0):
    return f"dpdk:net_af_packet{number},iface={device}"


def segments_off(m):
    """Packet sockets would be handed segments merged to 64 KiB, which no ring slot holds."""
    for host, device in ((m.a, "a0"), (m.b, "b0")):
        host.run("ethtool", "-K", device, "tso", "off", "gso", "off")


def whole_pings(m):
    for host, far in ((m.a, 2), (m.b, 1)):
        for address in (f"10.77.0.{far}", f"fd77::{far}"):
            for size in SIZES_WHOLE:
                host.run("ping", "-n", "-q", "-c", 5, "-i", 0.02, "-W", 20, "-s", size, address)


def transfers(m):
    """TCP both ways over both families at once; no host counts a bad checksum."""
    before = [checksum_errors(host) for host in m.hosts]
    running = [Transfer(a, b, family, number) for family in ADDRESS
               for a, b, number in ((m.a, m.b, 2), (m.b, m.a, 1))]
    for t in running:
        t.finish()
    for host, was in zip(m.hosts, before):
        bad = {k: v for k, v in checksum_errors(host).items() if v != was.get(k, 0)}
        expect(not bad, f"host {host.name} counted {bad}")
    say(f"TCP: {sum(t.sent for t in running) >> 20} MiB in all")


def mbufs_rest(f, port):
    """What lies in the driver's rings when nothing is sent is bounded by them."""
    k = f.port(port)["queues"][0]["kernel"]
    expect(k["mbufs_in_use"] < k["mbufs"], f"{port}: {k}")


def bridge(name, *devices):
    """The kernel's, which leaves frames as they are, and whose host says nothing by itself."""
    if run("ip", "link", "add", name, "type", "bridge", "mcast_snooping", 0,
           check=False).returncode != 0:
        skip("this kernel has no bridge")
    for device in (devices[0], name):
        run("sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=1")
    for family in ("iptables", "ip6tables", "arptables"):
        run("sysctl", "-qw", f"net.bridge.bridge-nf-call-{family}=0", check=False)
    for device in devices:
        run("ip", "link", "set", device, "master", name, "up")
    run("ip", "link", "set", name, "up")


def not_copied(f):
    for port in ("wan", "lan"):
        expect(f.total(port, "rx_frames") > f.total(port, "copied") == 0,
               f"{port}: frames were copied")


def exact(m):
    """Frames of every kind that a packet socket's kernel side leaves alone."""
    for lane in m.frames("exact", "--both", "--sizes", "14-1514/25", "--without", "ipv4-fragment",
                         "--without", "vlan-double-ipv6"):
        expect(lane["sent"] > 500 and lane["received"] == lane["sent"], str(lane))


def attach_two(m, f):
    f.ask("attach", "dpdk:net_null0", "dpdk:net_null1")
    wait_for("frames cross the new ports", lambda: f.total("dpdk:net_null1", "rx_frames") > 0)
    m.reachable()


def taps():
    """net_tap: ping, UDP and TCP of every sort, through taps bridged to the hosts"""
    m = Machine(ipv6=True, addresses=True)
    f = Culvert(config("dpdk:net_tap0,iface=t0", "dpdk:net_tap1,iface=t1"))
    bridge("br0", "t0", "p0")
    bridge("br1", "t1", "p1")
    m.reachable()
    pings(m)
    udp(m)
    transfers(m)
    not_copied(f)
    for port in ("wan", "lan"):
        mbufs_rest(f, port)
    f.end()


def tap_offload():
    """AF_XDP beside net_tap: the tap completes the checksums that the host leaves partial"""
    m = Machine(ipv6=True, addresses=True)
    m.before = {"p0": settings("p0")}
    f = Culvert(config("p0", "dpdk:net_tap0,iface=t0"))
    bridge("br0", "t0", "p1")
    m.reachable()
    udp(m)
    transfers(m)
    expect(f.total("wan", "checksums_offloaded") > 100, "nothing was left to the tap")
    expect(f.total("wan", "checksums_completed") == 0, "the worker completed checksums, too")
    f.end()


def packets():
    """net_af_packet: exact frames of every kind its kernel side leaves alone, and TCP"""
    m = Machine(ipv6=True, addresses=True)
    segments_off(m)
    m.before = {p: settings(p) for p in m.ports.values()}
    f = Culvert(config(packet("p0", 0), packet("p1", 1)))
    exact(m)
    m.reachable()
    whole_pings(m)
    transfers(m)
    run("ip", "link", "set", "p1", "down")
    wait_for("status says down", lambda: f.port("lan")["link"] == "down")
    run("ip", "link", "set", "p1", "up")
    wait_for("status says up", lambda: f.port("lan")["link"] == "up")
    m.reachable()
    f.end()
    m.unchanged()


def beside_af_xdp():
    """one port by AF_XDP, the other by DPDK: frames pass without a copy, exactly as they were"""
    m = Machine(ipv6=True, addresses=True)
    segments_off(m)
    m.before = {p: settings(p) for p in m.ports.values()}
    f = Culvert(config("p0", packet("p1")))
    exact(m)
    m.reachable()
    whole_pings(m)
    transfers(m)
    not_copied(f)
    f.end()
    expect(re.search(r"worker 0: all \d+ frames came back", f.log()), "the frames' end is not told")
    m.unchanged()


def peers(server, client):
    """Two processes joined by a device of each; the client dies, comes back, then ends well."""
    m = Machine(ipv6=True, addresses=True)
    segments_off(m)
    one = Culvert(config(packet("p0"), server))
    expect(one.port("lan")["link"] == "down", "the link is up without a peer")
    for how in (signal.SIGKILL, signal.SIGTERM):
        two = Culvert(config(client, packet("p1")))
        wait_for("the link is up", lambda: one.port("lan")["link"] == "up")
        m.reachable()
        transfers(m)
        not_copied(one)
        not_copied(two)
        if how == signal.SIGTERM:
            two.end()
        else:
            two.stop(how, expect_code=-how)
        wait_for("the link is down", lambda: one.port("lan")["link"] == "down")
        one.check_law()
    one.end()


def memif():
    """net_memif between two processes; one is killed and comes back"""
    peers("dpdk:net_memif0,role=server,socket=/run/memif.sock,socket-abstract=no",
          "dpdk:net_memif0,role=client,socket=/run/memif.sock,socket-abstract=no")


def vhost():
    """net_vhost and net_virtio_user between two processes; one is killed and comes back"""
    peers("dpdk:net_vhost0,iface=/run/vhost.sock", "dpdk:net_virtio_user0,path=/run/vhost.sock")


def peer_queues():
    """memif and vhost with two queues and two workers at each end: flows take both"""
    for server, client in (
            ("dpdk:net_memif0,role=server,queues=2", "dpdk:net_memif0,role=client,queues=2"),
            ("dpdk:net_vhost0,iface=/run/vhost.sock,queues=2",
             "dpdk:net_virtio_user0,path=/run/vhost.sock,queues=2")):
        m = Machine(queues=(2, 2), ipv6=True, addresses=True)
        segments_off(m)
        one, two = (Culvert("workers: 2\n" + config(a, b)) for a, b in (
            (packet("p0") + ",qpairs=2", server), (client, packet("p1") + ",qpairs=2")))
        wait_for("the link is up", lambda: one.port("lan")["link"] == "up")
        m.reachable()
        for host, far in ((m.a, 2), (m.b, 1)):
            for port in range(20000, 20064):
                with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                    s.bind(("", port))
                    s.sendto(b"flow", (f"10.77.0.{far}", 9))
        for f, port in ((one, "lan"), (two, "wan")):
            wait_for("both queues of both workers have frames", lambda: all(
                q["rx_frames"] > 5 < q["tx_frames"] and q["queue"] == q["worker"]
                for q in f.port(port)["queues"]) and len(f.port(port)["queues"]) == 2, 10)
        transfers(m)
        two.end()
        one.end()
        clear()


def live():
    """ports attached and detached while others forward"""
    m = Machine(addresses=True)
    f = Culvert(config(packet("p0", 0), packet("p1", 1)))
    m.reachable()
    for _ in range(3):
        attach_two(m, f)
        answer = f.ask("attach", "dpdk:net_null0,size=128", check=False)
        expect(answer.returncode != 0, "a device in use was attached again")
        f.ask("detach", "dpdk:net_null0", "dpdk:net_null1")
        m.reachable()
    f.end()
    m.unchanged()


def stopped():
    """frames that wait at a port when it stops: sent == delivered + counted as dropped"""
    m = Machine()
    sender = m.a.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sender.bind(("a0", 0))
    frame = b"\2" * 12 + b"\x88\xb5" + bytes(50)
    waited = 0

    def delivered():
        return link("b0", m.b)["stats64"]["rx"]["packets"]
    for _ in range(5):
        f = Culvert(config(packet("p0", 0), packet("p1", 1)))
        before = delivered()
        f.process.send_signal(signal.SIGSTOP)
        for _ in range(STOP_FRAMES):
            sender.send(frame)
        f.process.send_signal(signal.SIGTERM)
        f.stop(signal.SIGCONT)
        rx, drops = map(int, re.search(r"port wan: rx_frames=(\d+) tx_frames=\d+ drops=(\d+)",
                                       f.log()).groups())
        got = delivered() - before
        expect(rx == STOP_FRAMES == got + drops, f"of {STOP_FRAMES} frames {rx} were received: "
               f"{got} delivered, {drops} dropped")
        waited += drops
    say(f"{waited} of {5 * STOP_FRAMES} waited")


def late():
    """DPDK ports attached to a culvert that began without: their frames lie in its memory too"""
    m = Machine(addresses=True)
    f = Culvert(config("p0", "p1"))
    m.reachable()
    for _ in range(2):
        attach_two(m, f)
        expect(f.total("dpdk:net_null1", "copied") == 0, "frames were copied")
        f.check_law()
        f.ask("detach", "dpdk:net_null0", "dpdk:net_null1")
        m.reachable()
        expect(all(x["driver"] == 0 for x in f.status()["frames"]), "DPDK keeps slots")
    f.end()
    f = Culvert(config("dpdk:net_null0", "dpdk:net_null1"))
    f.ask("attach", "p0", "p1")
    m.reachable()
    f.end()
    m.unchanged()


def refused():
    """what can't be had says why, in one line, and what helps"""
    m = Machine()
    for device, words in (("dpdk:net_af_packet0", "needs iface="),
                          ("dpdk:net_af_packet0,iface=nosuch", "no network device nosuch"),
                          ("dpdk:net_nosuch0", "net_nosuch0"),
                          ("dpdk:net_virtio_user0", "needs path="),
                          ("dpdk:net_virtio_user0,path=/run/v.sock,server=1", "answer nobody"),
                          ("dpdk:net_memif0,role=middle", "no role middle"),
                          ("dpdk:ffff:ff:1f.7", "no PCI device ffff:ff:1f.7")):
        f = Culvert(config(device, packet("p1")), ready=False)
        code = f.process.wait(timeout=60)
        lines = [x for x in f.log().splitlines() if "error:" in x]
        expect(code in (1, 3) and len(lines) == 1 and words in lines[0] and "; " in lines[0],
               f"{device}: exit {code}\n{f.log()}")
        Culvert.alive.remove(f)
    m.unchanged()


main(taps, tap_offload, packets, beside_af_xdp, memif, vhost, peer_queues, live, late, stopped,
     refused)
