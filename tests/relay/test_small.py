"""Small messages of many connections at once, which the relay may send in batches (io_uring):
exact whatever happens to the others of a batch, and when the kernel refuses batches."""
import fcntl
import os
import socket
import struct
import subprocess
import time

from harness import (Listener, Relay, Server, Skip, check, echo, ended, equal, load, main, path,
                     receive, receive_all, reset, wait_readable)
from setups import calls_counted, held_up

MANY = 40
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454ca, 1, 0x1000  # linux/if_tun.h
SYN, RST, ACK = 2, 4, 16
SIZES = (1, 64, 64, 1000, 4095, 4096, 4097, 16384, 3)


def message(number, turn, size=64):
    return (b"%d/%d " % (number, turn) * size)[:size]


def pairs(relay, target, n=MANY):
    """Connections, each end to end; those of the target come in any order and say who they are."""
    clients, servers = [relay.connect() for _ in range(n)], [None] * n
    for number, c in enumerate(clients):
        c.sendall(b"%03d" % number)
    for _ in range(n):
        s = target.accept()
        servers[int(receive(s, 3))] = s
    return clients, servers


def close(*lists):
    for sockets in lists:
        for s in sockets:
            s.close()


def test_echoes_of_every_size():
    target = Listener(handler=echo)
    for workers in (1, 2):
        relay = Relay("tcp:127.0.0.1:0", target.where, workers=workers)
        clients = [relay.connect() for _ in range(MANY)]
        for turn, size in enumerate(SIZES):
            with held_up(relay):
                for number, c in enumerate(clients):
                    c.sendall(message(number, turn, size))
            for number, c in enumerate(clients):
                equal(receive(c, size), message(number, turn, size), f"echo of {size}")
        close(clients)
        relay.idle_again()
        relay.stop()
        equal(relay.totals()["bytes_in"], relay.totals()["bytes_out"], "bytes counted")
        equal(relay.totals()["bytes_in"], MANY * sum(SIZES), "bytes counted")


def test_ends_and_resets_in_the_middle_of_a_batch():
    """Of four connections one goes on, one ends behind its message, one is reset by its client,
    one by its target; messages go both ways in the same turn."""
    target = Listener()
    relay = Relay("tcp:127.0.0.1:0", target.where)
    for turn in range(5):
        clients, servers = pairs(relay, target)
        with held_up(relay):
            for number, (c, s) in enumerate(zip(clients, servers)):
                c.sendall(message(number, turn))
                s.sendall(message(number, turn + 1))
                if number % 4 == 1:
                    c.shutdown(1)
                elif number % 4 == 2:
                    reset(c)
                elif number % 4 == 3:
                    reset(s)
        for number, (c, s) in enumerate(zip(clients, servers)):
            if number % 4 < 2:
                equal(receive(s, 64), message(number, turn), "to the target")
                equal(receive(c, 64), message(number, turn + 1), "to the client")
            if number % 4 == 1:
                equal(s.recv(1), b"", "the client's end")
                s.sendall(b"answer")
                equal(receive(c, 6), b"answer", "after the client's end")
            elif number % 4 == 2:
                equal(ended(s), "reset", "the client's reset")
            elif number % 4 == 3:
                equal(ended(c), "reset", "the target's reset")
            else:
                c.sendall(b"on")
                equal(receive(s, 2), b"on", "afterwards")
        close(clients, servers)
        relay.idle_again()
    relay.stop()


def segments_in(s):
    """tcpi_segs_in of tcp(7)'s struct tcp_info."""
    return struct.unpack_from("I", s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144), 140)[0]


def test_the_last_message_takes_the_end_along():
    """One segment with the bytes and the FIN, and at once: nobody waits for a timer."""
    target = Listener()
    for engine in ("auto", "copy"):
        relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine)
        for way in ("up", "down"):
            fewest, took = 9, []
            for _ in range(20):  # whether the relay finds both at once is up to the machine
                client, server = relay.connect(), target.accept()
                a, b = (client, server) if way == "up" else (server, client)
                before = segments_in(b)
                with held_up(relay):
                    a.sendall(b"last")
                    a.shutdown(socket.SHUT_WR)
                began = time.monotonic()
                equal(receive_all(b), b"last", f"{engine} {way}: the last message")
                took.append(time.monotonic() - began)
                fewest = min(fewest, segments_in(b) - before)
                close((a, b))
                if fewest == 1 and min(took) < 0.03:
                    break
            equal(fewest, 1, f"{engine} {way}: segments")
            check(min(took) < 0.03, f"{engine} {way}: {min(took):.3f} s at best")
        relay.stop()


def test_the_first_bytes_take_the_handshake_along():
    """One segment ends the handshake and brings the bytes, where there are some; where there are
    none the target need not wait: it may be who speaks first."""
    target = Listener()
    for engine in ("auto", "copy", "splice"):
        relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine)
        fewest, took = 9, []
        for _ in range(20):  # whether the relay finds both at once is up to the machine
            with held_up(relay):
                client = relay.connect()
                client.sendall(b"first")
            server = target.accept()
            equal(receive(server, 5), b"first", f"{engine}: the first bytes")
            fewest = min(fewest, segments_in(server))
            close((client, server))
            began = time.monotonic()
            client, server = relay.connect(), target.accept()
            took.append(time.monotonic() - began)
            server.sendall(b"hello")
            equal(receive(client, 5), b"hello", f"{engine}: the target's greeting")
            close((client, server))
            if fewest == 2 and min(took) < 0.1:
                break
        equal(fewest, 2, f"{engine}: segments, the SYN one of them")
        check(min(took) < 0.1, f"{engine}: accepted after {min(took):.3f} s at best")
        relay.stop()


def test_a_target_that_waits_for_acknowledgements():
    """Its second small write goes when the first is acknowledged (RFC 896): at once, on a new
    connection."""
    target = Listener()
    for engine in ("auto", "copy", "splice"):
        relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine)
        took = []
        for _ in range(20):
            client = relay.connect()
            client.sendall(b"ask")
            server = target.accept()
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            equal(receive(server, 3), b"ask", f"{engine}: the request")
            began = time.monotonic()
            server.sendall(b"ans")
            server.sendall(b"wer")
            equal(receive(client, 6), b"answer", f"{engine}: the answer")
            took.append(time.monotonic() - began)
            close((client, server))
            if min(took) < 0.03:
                break
        check(min(took) < 0.03, f"{engine}: answered after {min(took):.3f} s at best")
        relay.stop()


class ClosedWindow:
    """A target behind a tun device whose SYN-ACK announces a window of 0, as netfilter's SYNPROXY
    does."""

    def __init__(self):
        self.fd = os.open("/dev/net/tun", os.O_RDWR)
        name = fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", b"", IFF_TUN | IFF_NO_PI))
        self.device = name[:16].rstrip(b"\0").decode()
        for words in (f"address add 192.0.2.1/24 dev {self.device}", f"link set {self.device} up"):
            subprocess.run(["ip", *words.split()], check=True)

    def segment(self, flag):
        """The next TCP segment that has the flag."""
        while True:
            check(wait_readable(self.fd, 10), "a segment to the target")
            packet = os.read(self.fd, 2048)
            if packet[0] == 0x45 and packet[9] == socket.IPPROTO_TCP and packet[33] & flag:
                return packet

    def answer(self, syn, own_seq, flags):
        def checksum(data):
            total = sum(struct.unpack(f"!{len(data) // 2}H", data))
            total = (total & 0xffff) + (total >> 16)
            return ~((total & 0xffff) + (total >> 16)) & 0xffff
        port, seq = syn[20:22], struct.unpack_from("!I", syn, 24)[0]
        tcp = syn[22:24] + port + struct.pack("!IIBBHHH", own_seq, seq + 1, 5 << 4, flags, 0, 0,
                                                     0)
        pseudo = syn[16:20] + syn[12:16] + struct.pack("!HH", socket.IPPROTO_TCP, len(tcp))
        tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP, 0) + \
            syn[16:20] + syn[12:16]
        os.write(self.fd, ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + tcp)

    def close(self):
        os.close(self.fd)


def test_a_target_with_a_closed_window_is_acknowledged():
    try:
        target = ClosedWindow()
    except OSError as e:
        raise Skip(f"no tun device: {e}") from e
    relay = Relay("tcp:127.0.0.1:0", "tcp:192.0.2.2:7")
    took = []
    for _ in range(10):
        with held_up(relay):
            client = relay.connect()
            client.sendall(b"first")
        syn = target.segment(SYN)
        target.answer(syn, 1, SYN | ACK)
        began = time.monotonic()
        target.segment(ACK)
        took.append(time.monotonic() - began)
        target.answer(syn, 2, RST | ACK)
        close((client,))
        if min(took) < 0.1:
            break
    check(min(took) < 0.1, f"acknowledged after {min(took):.3f} s at best")
    relay.stop()
    target.close()


def test_no_room():
    """Receivers that are slow to take small messages: short sends, and none."""
    server = Server()
    relay = Relay("tcp:127.0.0.1:0", server.where)
    load(relay.where, connections=30, concurrent=30, up="150k", down="150k", chunk=300,
         server_chunk=300, rcvbuf=4096, sndbuf=4096)
    relay.stop()
    server.finish()


def test_refused():
    for fault in ("io_uring_setup:EPERM", "io_uring_setup:ENOSYS", "io_uring_setup:ENOMEM",
                  "io_uring_enter:EPERM", "io_uring_enter:EINVAL:3", "io_uring_enter:EINTR:2:3",
                  "io_uring_register:EPERM", "io_uring_enter:none"):
        target, stats = Listener(handler=echo), path("stats")
        relay = Relay("tcp:127.0.0.1:0", target.where, faults=[fault], stats=stats)
        clients = [relay.connect() for _ in range(MANY)]
        for turn in range(12):
            with held_up(relay):
                for number, c in enumerate(clients):
                    c.sendall(message(number, turn))
            for number, c in enumerate(clients):
                equal(receive(c, 64), message(number, turn), f"{fault}: an echo")
        close(clients)
        relay.idle_again()
        told = relay.logged(r"io_uring is refused")
        relay.stop()
        target.close()
        calls, failed, _ = calls_counted(stats)
        os.unlink(stats)
        if not calls:
            raise Skip("built without io_uring, or the kernel has none")
        equal(failed > 0, not fault.endswith(":none"), f"{fault}: calls failed")
        lasts = fault.endswith(("setup:EPERM", "ENOSYS", "ENOMEM", "enter:EPERM", "EINVAL:3"))
        equal(len(told), int(lasts), f"{fault}: lines of log: {told}")
        if fault.endswith(":none"):
            check(calls >= 6, f"only {calls} batches in 12 turns of {MANY} messages each")


main()
