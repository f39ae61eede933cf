"""Files of frames through DPDK's virtual devices: what comes out is what went in, byte for byte."""
import os
import random
import struct

from harness import Culvert, Failure, Machine, expect, main, quiet, run, wait_for

IN, OUT = "/run/in.pcap", "/run/out.pcap"
ADDRESSES = b"\2\0\0\0\0\1\2\0\0\0\0\2"
EXPERIMENTAL = b"\x88\xb5"
TAG, SERVICE_TAG = b"\x81\0\0\5", b"\x88\xa8\0\6"


def folded(data):
    """The sum of the Internet checksum."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


def datagram(tags, partial):
    """UDP over IPv4; its checksum field is complete, or has the pseudo-header's sum alone."""
    ends, payload = b"\x0a\x4d\0\1\x0a\x4d\0\2", random.randbytes(100)
    pseudo = ends + struct.pack(">BBH", 0, 17, 8 + len(payload))
    udp = struct.pack(">HHHH", 1000, 2000, 8 + len(payload), 0)
    checksum = folded(pseudo) if partial else 0xffff ^ folded(pseudo + udp + payload) or 0xffff
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 28 + len(payload), 1, 0x4000, 64, 17, 0) + ends
    ip = ip[:10] + struct.pack(">H", 0xffff ^ folded(ip)) + ip[12:]
    return ADDRESSES + TAG * tags + b"\x08\0" + ip + udp[:6] + struct.pack(">H", checksum) + payload


def frames_of(mtu):
    """Of all lengths, plain and tagged, and datagrams; 300 or so: no ring overflows."""
    plain = [ADDRESSES + EXPERIMENTAL + random.randbytes(n - 14)
             for n in range(60, mtu + 15, mtu // 250)]
    tagged = [ADDRESSES + tags + EXPERIMENTAL + random.randbytes(mtu - len(tags))
              for tags in (TAG, SERVICE_TAG + TAG)]
    return plain + tagged + [datagram(tags, False) for tags in (0, 1, 2)]


def write_frames(frames):
    with open(IN, "wb") as f:
        f.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
        for x in frames:
            f.write(struct.pack("<IIII", 0, 0, len(x), len(x)) + x)


def read_frames():
    with open(OUT, "rb") as f:
        data = f.read()
    at, frames = 24, []
    while at + 16 <= len(data):
        length = struct.unpack_from("<I", data, at + 8)[0]
        frames.append(data[at + 16:at + 16 + length])
        at += 16 + length
    return [x for x in frames if x.startswith(ADDRESSES)]  # the machine itself may send, too


def config(*devices):
    return "ports:\n" + "".join(f'  - {{ name: v{i}, device: "{d}" }}\n'
                                for i, d in enumerate(devices))


def carried(into, into_port, out_of, out_port, mtu):
    """Frames from a file into a port of one culvert come out of another's (or the same) port."""
    size = f",mtu={mtu}" if mtu > 1500 else ""
    frames = frames_of(mtu)
    partial = [datagram(tags, True) for tags in (0, 1)]
    write_frames(frames + partial)
    source, sink = f"dpdk:net_pcap0,rx_pcap={IN}{size}", f"dpdk:net_pcap1,tx_pcap={OUT}{size}"
    out_of.ask("attach", sink, out_port)
    into.ask("attach", source, into_port)
    try:
        wait_for("the frames arrive", lambda: out_of.total(sink, "tx_frames") >=
                 len(frames) + len(partial), 20)
    except Failure as e:
        raise Failure(f"{e}: {into.drops()} {out_of.drops()}") from None
    completed = into.total(source, "checksums_completed")
    for f in {into, out_of}:
        f.check_law()
    out_of.ask("detach", sink)
    into.ask("detach", source)
    got = read_frames()
    expect(got[:len(frames)] == frames, f"{sum(a != b for a, b in zip(got, frames))} of "
           f"{len(frames)} frames of MTU {mtu} are others than were sent, {len(got)} came")
    expect(completed == len(partial), f"{completed} checksums were completed")
    for sent, came in zip(partial, got[len(frames):]):
        at = len(sent) - 108 + 6
        expect(sent[:at] + sent[at + 2:] == came[:at] + came[at + 2:], "more than a checksum")
        ip = came[len(sent) - 128:]
        pseudo = ip[12:20] + struct.pack(">BBH", 0, 17, 108)
        expect(folded(pseudo + ip[20:]) == 0xffff, "the checksum is wrong")


def both_ways(server, client):
    """Between two processes, of 1500 and of 9000 bytes."""
    Machine()
    for mtu in (1500, 9000):
        size = f",mtu={mtu}" if mtu > 1500 else ""
        one, two = Culvert(config(server + size)), Culvert(config(client + size))
        wait_for("both are joined",
                 lambda: all(f.port("v0")["link"] == "up" for f in (one, two)))
        carried(one, "v0", two, "v0", mtu)
        carried(two, "v0", one, "v0", mtu)
        two.end()
        one.end()


def memif():
    """net_memif, whose buffers are smaller than the frames"""
    both_ways("dpdk:net_memif0,role=server,socket=/run/m,socket-abstract=no",
              "dpdk:net_memif0,role=client,socket=/run/m,socket-abstract=no")


def vhost():
    """net_vhost and net_virtio_user"""
    both_ways("dpdk:net_vhost0,iface=/run/v", "dpdk:net_virtio_user0,path=/run/v")


def devices():
    """net_pcap on a network device, which knows its MTU, its link and that it is gone"""
    Machine()
    for mtu in (1500, 9000):
        run("ip", "link", "add", "q0", "mtu", mtu, "type", "veth", "peer", "name", "q1",
            "mtu", mtu)
        for device in ("q0", "q1"):
            quiet(device)
            run("ip", "link", "set", device, "up")
        f = Culvert(config("dpdk:net_pcap2,iface=q0", "dpdk:net_pcap3,iface=q1"))
        wait_for("both are up", lambda: f.port("v0")["link"] == f.port("v1")["link"] == "up")
        carried(f, "v0", f, "v1", mtu)
        carried(f, "v1", f, "v0", mtu)
        run("ip", "link", "set", "q1", "down")
        wait_for("status says down", lambda: f.port("v1")["link"] == "down")
        run("ip", "link", "del", "q0")
        wait_for("status says gone",
                 lambda: all(f.port(p)["link"] == "gone" for p in ("v0", "v1")))
        f.end()
        os.unlink(OUT)


def taps():
    """net_tap says what its driver allows"""
    Machine()
    f = Culvert(config("dpdk:net_tap0,mtu=9000"), ready=False)
    f.wait_log("net_tap0: its driver allows an MTU from")
    f.process.wait(60)
    f.stop(expect_code=1)


main(memif, vhost, devices, taps)
