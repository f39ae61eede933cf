"""UDP routes: sessions by peer address, their idle timeout, order, sizes, balance."""
import os
import socket
import threading
import time

from harness import Relay, check, equal, eventually, keep, main


class Echo:
    """Answers each datagram with a name and the datagram; counts who came."""

    def __init__(self, name=b"", family=socket.AF_INET):
        self.s = socket.socket(family, socket.SOCK_DGRAM)
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.s.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        host = "127.0.0.1" if family == socket.AF_INET else "[::1]"
        self.where = f"udp:{host}:{self.s.getsockname()[1]}"
        self.name, self.peers, self.ends = name, [], False
        keep(self)
        threading.Thread(target=self.serve, daemon=True).start()

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
            self.s.sendto(self.name + data, peer)

    def close(self):
        self.ends = True
        self.s.close()


def client(relay):
    s = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
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
    time.sleep(0.3)
    for _ in range(20):
        try:
            s.send(b"into the void")
        except ConnectionRefusedError:
            pass
    relay.quiet(what=": the target is gone")
    relay.stop(leak=False)


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
