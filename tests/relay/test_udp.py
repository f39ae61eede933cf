"""UDP routes: sessions by peer address, their idle timeout, order, sizes, balance, what is counted."""
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time

from harness import (SLOW, Relay, Skip, check, equal, eventually, keep, main, wait_readable)
from setups import Daemon, held_up

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
SO_RCVBUFFORCE = 33


def large_queue(s):
    """Room enough that this end loses nothing: beyond net.core.rmem_max where it may."""
    try:
        s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
    except PermissionError:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)


class Echo:
    """Answers each datagram with a name and the datagram; counts who came and what."""

    def __init__(self, name=b"", host="127.0.0.1", port=0):
        self.s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        large_queue(self.s)
        self.s.bind((host, port))
        self.port = self.s.getsockname()[1]
        self.where = f"udp:{host}:{self.port}"
        self.name, self.peers, self.ends, self.bytes = name, [], False, 0
        keep(self)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        self.s.settimeout(0.2)
        while not self.ends:
            try:
                data, peer = self.s.recvfrom(65536)
            except TimeoutError:
                continue
            except OSError:
                return
            self.peers.append(peer)
            self.bytes += len(data)
            self.s.sendto(self.name + data, peer)

    def close(self):
        # Only the last descriptor's end frees the port: not while the thread is inside recvfrom.
        self.ends = True
        self.thread.join(10)
        self.s.close()


def client(relay):
    s = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    large_queue(s)
    s.settimeout(1)
    s.connect(("127.0.0.1", relay.port))
    return s


def exchange(s, data, tries=15):
    """Sends until an answer comes: a datagram may get lost, though hardly on loopback."""
    for _ in range(tries):
        s.send(data)
        try:
            return s.recv(65536)
        except (TimeoutError, ConnectionRefusedError):
            pass
    return None


def test_sizes():
    target = Echo()
    relay = Relay("udp:127.0.0.1:0", target.where)
    s = client(relay)
    for size in (0, 1, 100, 1472, 1473, 9000, 65000):
        data = os.urandom(size)
        equal(exchange(s, data), data, f"{size} bytes")
    relay.stop(leak=False)


def test_sessions_are_kept_apart():
    target = Echo()
    relay = Relay("udp:127.0.0.1:0", target.where)
    clients = [client(relay) for _ in range(50)]
    for turn in range(4):
        for i, s in enumerate(clients):
            data = b"%d of %d" % (turn, i)
            equal(exchange(s, data), data, "everyone's own answer")
    equal(len(set(target.peers)), 50, "one source port a session")
    relay.stop(leak=False)


def test_bursts_keep_their_order():
    """Batched in and out (recvmmsg, GRO, GSO): neither joined nor split nor out of order."""
    target = Echo()
    relay = Relay("udp:127.0.0.1:0", target.where)
    s = client(relay)
    exchange(s, b"open the session")
    for size in (10, 1200):
        for _ in range(20):
            sent = [i.to_bytes(4, "big") * (size // 4) + b"e" * (i % 3) for i in range(40)]
            for data in sent:
                s.send(data)
            got = []
            try:
                while len(got) < len(sent):
                    got.append(s.recv(65536))
            except TimeoutError:
                pass
            check(len(got) >= 30, f"{len(got)} of {len(sent)} datagrams came back")
            rest = iter(sent)
            check(all(g in rest for g in got), "in order, each as it was sent")
    relay.stop(leak=False)


def test_idle_sessions_end():
    target = Echo()
    relay = Relay("udp:127.0.0.1:0", target.where, idle_timeout="500ms")
    s = client(relay)
    equal(exchange(s, b"one"), b"one", "answer")
    check(relay.sockets() > relay.baseline, "a socket for the session")
    eventually(lambda: relay.sockets() <= relay.baseline, "the session's socket is closed")
    equal(exchange(s, b"two"), b"two", "a new session for the same peer")
    relay.stop(leak=False)


def test_balance_over_targets():
    targets = [Echo(b"a"), Echo(b"b")]
    relay = Relay("udp:127.0.0.1:0", *(t.where for t in targets))
    seen = set()
    for _ in range(10):
        s = client(relay)
        first = exchange(s, b"?")
        equal(exchange(s, b"?"), first, "a session stays with its target")
        seen.add(first)
    equal(seen, {b"a?", b"b?"}, "both are used")
    relay.stop(leak=False)


def test_a_dead_target_does_not_spin():
    target = Echo()
    relay = Relay("udp:127.0.0.1:0", target.where)
    s = client(relay)
    equal(exchange(s, b"x"), b"x", "answer")
    target.close()
    for _ in range(20):
        try:
            s.send(b"into the void")
        except ConnectionRefusedError:
            pass
    relay.quiet(what=": the target is gone")
    relay.stop(leak=False)


def epoll_sets(relay):
    """How many descriptors each of its epoll sets has."""
    sets = []
    for fd, link in relay.links():
        if "eventpoll" in link:
            with open(f"/proc/{relay.pid}/fdinfo/{fd}", encoding="ascii") as f:
                sets.append(f.read().count("tfd:"))
    return sorted(sets)


def test_64_peers_over_two_workers():
    """Each peer has one session, both workers have their part of them, every byte is right."""
    target = Echo()
    relay = Relay("udp:127.0.0.1:0", target.where, workers=2)
    draw = random.Random(64)
    peers = [client(relay) for _ in range(64)]
    for turn in range(20):
        waiting = {}
        for i, s in enumerate(peers):
            data = struct.pack("HH", i, turn) + draw.randbytes(draw.randrange(1400))
            waiting[s] = data
            s.send(data)
        end = time.monotonic() + 20 * SLOW
        while waiting:
            left = end - time.monotonic()
            check(left > 0, f"turn {turn}: no answer for {len(waiting)} peers")
            for s in select.select(list(waiting), [], [], left)[0]:
                check(s.recv(65536) == waiting.pop(s), "the peer's own bytes come back")
    sets = epoll_sets(relay)
    check(sets[-2] >= 10 and sets[-1] + sets[-2] >= 64, f"sessions on both workers: {sets}")
    equal(len(set(target.peers)), 64, "sessions as the target sees them")
    relay.stop(leak=False)
    got = relay.totals()
    equal((got["connections"], got["bytes_in"], got["bytes_out"], got["dropped"]),
          (64, target.bytes, target.bytes, 0), "sessions, bytes each way and drops counted")


def test_a_port_that_is_held_is_not_shared():
    """Workers share their port with each other only: who else asks for it learns who has it."""
    target = Echo()
    first = Relay("udp:127.0.0.1:0", target.where, workers=2)
    second = Relay(f"udp:127.0.0.1:{first.port}", target.where, workers=2, ready=False)
    check(second.wait() != 0 and second.logged(rf"in use by culvert \(pid {first.pid}\)"),
          f"refused with the holder's name: {second.err}")
    equal(exchange(client(first), b"x"), b"x", "the first serves on")
    first.stop(leak=False)


def test_only_what_was_sent_is_counted():
    """A datagram that can't be sent is a drop, and none of its bytes count."""
    if os.geteuid():
        raise Skip("addresses of its own need root")
    subprocess.run(["ip", "address", "add", "10.99.0.1/32", "dev", "lo"], check=True)
    target = Echo(host="10.99.0.1")
    relay = Relay("udp:127.0.0.1:0", target.where)
    s = client(relay)
    for _ in range(10):
        equal(exchange(s, b"x" * 100), b"x" * 100, "answer")
    subprocess.run(["ip", "address", "delete", "10.99.0.1/32", "dev", "lo"], check=True)
    for _ in range(7):
        s.send(b"y" * 100)
    relay.quiet(what=": no route to the target")
    relay.stop(leak=False)
    got = relay.totals()
    equal((got["bytes_in"], got["dropped"]), (target.bytes, 7), f"bytes and drops: {got}")


def test_what_a_full_queue_loses_is_counted():
    target = Echo()
    relay = Relay("udp:127.0.0.1:0", target.where)
    s = client(relay)
    equal(exchange(s, b"open"), b"open", "answer")
    with held_up(relay):
        for _ in range(2000):
            s.send(b"z" * 1000)
    relay.quiet(what=": all has gone through")
    answers = 0
    while wait_readable(s, 0):
        answers += len(s.recv(65536)) == 1000
    relay.stop(leak=False)
    got = relay.totals()
    check(10 < answers < 2000, f"the queue was to overflow: {answers} of 2000 answered")
    equal(answers + got["dropped"], 2000, f"answered ({answers}) and dropped: {got}")


def answer(s, seconds=1.0):
    try:
        s.settimeout(seconds * SLOW)
        return s.recv(65536)
    except (TimeoutError, ConnectionRefusedError):
        return None


def test_a_refusing_target_gives_way():
    """ICMP says that nobody is there: the session goes on with the other target, and the next ones
    begin there."""
    targets = [Echo(b"a"), Echo(b"b")]
    relay = Relay("udp:127.0.0.1:0", *(t.where for t in targets), balance="source_hash",
                  health="1h")
    s = client(relay)
    first = exchange(s, b"?")
    gone, other = (targets if first == b"a?" else targets[::-1])
    gone.close()
    s.send(b"!")  # goes where nobody is: lost, and answered by ICMP
    eventually(lambda: exchange(s, b"?", tries=1), "the session has another target")
    equal(exchange(s, b"?"), other.name + b"?", "and stays with it")
    # Two more failures, and it counts as down: no session begins there any more.
    for _ in range(2):
        equal(exchange(client(relay), b"?"), other.name + b"?", "the other one answers")
    eventually(lambda: relay.logged(rf"target {gone.where} is down after 3 failures"),
               lambda: f"down: {relay.err}")
    for _ in range(10):
        s = client(relay)
        s.send(b"?")
        equal(answer(s, 10), other.name + b"?", "the first datagram is answered")
    relay.stop(leak=False)
    got = relay.totals()
    equal((got["connections"], got["retries"], got["errors"]), (13, 3, 0), f"totals: {got}")


def test_a_target_that_is_back_is_used_again():
    targets = [Echo(b"a"), Echo(b"b")]
    relay = Relay("udp:127.0.0.1:0", *(t.where for t in targets), health="200ms",
                  health_failures="1")
    targets[0].close()
    eventually(lambda: exchange(client(relay), b"?", 2) and relay.logged("is down after 1"), "down")
    back = Echo(b"a", port=targets[0].port)
    eventually(lambda: exchange(client(relay), b"?") == b"a?", "it is tried again")
    eventually(lambda: relay.logged(rf"target {back.where} is up again"), lambda: f"log: {relay.err}")
    relay.stop(leak=False)


def test_joined_datagrams_stay_joined_through_the_relay():
    """What the kernel joins (GRO) is one message in the relay, which the kernel cuts (GSO)."""
    target = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    try:
        target.setsockopt(SOL_UDP, UDP_GRO, 1)
    except OSError as e:
        raise Skip(f"no UDP_GRO here: {e}") from None
    target.bind(("127.0.0.1", 0))
    target.settimeout(20 * SLOW)
    relay = Relay("udp:127.0.0.1:0", f"udp:127.0.0.1:{target.getsockname()[1]}")
    s = client(relay)
    data = os.urandom(20 * 1200 + 7)

    def once(sender, receiver, to=None):
        segment = [(SOL_UDP, UDP_SEGMENT, struct.pack("H", 1200))]
        if to:
            sender.sendmsg([data], segment, 0, to)
        else:
            sender.sendmsg([data], segment)
        got, beside, _, peer = receiver.recvmsg(65536, 128)
        check(got == data, f"{len(got)} of {len(data)} bytes at once, as they were")
        sizes = [struct.unpack("i", c)[0] for level, kind, c in beside if (level, kind) == (SOL_UDP, UDP_GRO)]
        equal(sizes, [1200], "the size of the datagrams in it")
        return peer

    peer = once(s, target)
    s.setsockopt(SOL_UDP, UDP_GRO, 1)
    s.settimeout(20 * SLOW)
    once(target, s, peer)
    # Who can't take joined ones gets them one by one.
    s.setsockopt(SOL_UDP, UDP_GRO, 0)
    target.sendmsg([data], [(SOL_UDP, UDP_SEGMENT, struct.pack("H", 1200))], 0, peer)
    got = [s.recv(65536) for _ in range(21)]
    equal([len(g) for g in got], [1200] * 20 + [7], "sizes")
    check(b"".join(got) == data, "the bytes")
    relay.stop(leak=False)
    got = relay.totals()
    equal((got["bytes_in"], got["bytes_out"]), (len(data), 2 * len(data)), "bytes counted")


def test_a_reload_keeps_the_workers_sockets():
    """The port was the kernel's to choose and stays; every client has the new target at once."""
    old, new = Echo(b"old"), Echo(b"new")

    def route(target):
        return {"name": "names", "listen": "udp:127.0.0.1:0", "to": [target.where]}

    relay = Daemon(route(old), workers=2)
    clients = [client(relay) for _ in range(16)]
    for s in clients:
        equal(exchange(s, b"?"), b"old?", "the old target")
    relay.reload(route(new), workers=2)
    for s in clients:
        equal(exchange(s, b"?"), b"new?", "the new target")
    equal(relay.sockets(), relay.baseline + len(clients), "sockets: one a session, none left over")
    relay.stop(leak=False)
    equal(relay.totals()["connections"], 32, "sessions of both, in one sum")


def test_out_of_descriptors():
    """No session can be had: what is open goes on, the rest is dropped and counted, and served when
    there is room again."""
    target = Echo()
    relay = Relay("udp:127.0.0.1:0", target.where, limit=64, idle_timeout="2s")
    first = client(relay)
    equal(exchange(first, b"first"), b"first", "answer")
    others = [client(relay) for _ in range(100)]
    for s in others:
        s.send(b"other")
    relay.quiet(what=": no room for more sessions", most=25)
    for s in others[-2:]:
        check(not wait_readable(s, 0), "no room for everyone")
    check(len(relay.err) < 10, f"its log: {relay.err}")
    eventually(lambda: exchange(others[-1], b"late", tries=1) == b"late", "room again")
    relay.stop(leak=False)
    got = relay.totals()
    check(got["dropped"] >= 100 - 64 and got["connections"] <= 64, f"totals: {got}")


def test_deny():
    target = Echo()
    relay = Relay("udp:127.0.0.1:0", target.where, deny="127.0.7.0/24")
    s = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    s.bind(("127.0.7.1", 0))
    s.settimeout(0.5)
    s.sendto(b"x", ("127.0.0.1", relay.port))
    try:
        s.recv(100)
        check(False, "an answer for a denied source")
    except TimeoutError:
        pass
    equal(exchange(client(relay), b"x"), b"x", "everyone else")
    relay.stop(leak=False)


main()
