"""Limits and times: how long, how many, how fast, who."""
import json
import signal
import socket
import threading
import time

from harness import (CULVERT, DEADLINE, LONG, SLOW, Listener, Relay, Server, ask, check, connect, echo,
                     ended, equal, eventually, full_listener, load, main, path, receive, reset,
                     saying, try_connection, wait_readable)
from setups import Daemon, joined


def served(relay, s):
    """Whether the connection gets an answer from the echo behind the relay."""
    try:
        s.sendall(b"x")
        return receive(s, 1) == b"x"
    except OSError:
        return False


def test_idle_timeout():
    relay, client, server = joined(idle_timeout="500ms")
    began = time.monotonic()
    ended(client)
    took = time.monotonic() - began
    check(took >= 0.4, f"cut after {took:.2f} s, want 0.5")
    ended(server)
    relay.idle_again()
    relay.stop()


def test_idle_timeout_spares_a_busy_connection():
    server = Server()
    relay = Relay("tcp:127.0.0.1:0", server.where, idle_timeout="1s", connection_rate="2M/s")
    load(relay.where, up="5M", down="0")
    relay.stop()
    server.finish()


def test_connect_timeout():
    full = full_listener()
    relay = Relay("tcp:127.0.0.1:0", full.where, connect_timeout="500ms", retries=0)
    began = time.monotonic()
    try_connection(relay.where)
    took = time.monotonic() - began
    check(0.3 < took < 10 * SLOW, f"given up after {took:.1f} s, want 0.5")
    relay.stop()


def test_max_connections_of_all_routes():
    """By the command line and by the configuration: over two routes together."""
    target = Listener(handler=echo)
    config = path("culvert.yaml")
    with open(config, "w", encoding="utf-8") as f:
        f.write(json.dumps({"max_connections": 3, "relay": [
            {"listen": "tcp:127.0.0.1:0", "to": [target.where]} for _ in range(2)]}))
    for command in ([CULVERT, "run", "--config", config, "--socket", path("control.sock")],
                    [CULVERT, "relay", "tcp:127.0.0.1:0", target.where, "tcp:127.0.0.1:0",
                     target.where, "--max-connections", "3"]):
        relay = Relay(command=command)
        clients = [relay.connect(where=relay.all()[i % 2]) for i in range(3)]
        check(all(served(relay, c) for c in clients), "three are served")
        more = [relay.connect(where=where) for where in relay.all()]
        for c in more:
            c.sendall(b"x")
        check(not any(wait_readable(c, 0.3) for c in more), "a fourth waits, on either route")
        for c in clients:
            c.close()
        equal([receive(c, 1) for c in more], [b"x", b"x"], "they are served when others end")
        for c in more:
            c.close()
        relay.stop()


def test_max_connections():
    target = Listener(handler=echo)
    relay = Relay("tcp:127.0.0.1:0", target.where, max_connections=5)
    held = [relay.connect() for _ in range(5)]
    for s in held:
        check(served(relay, s), "the first five are served")
    # A sixth is refused or waits, but is not served.
    sixth = relay.connect()
    sixth.settimeout(0.5)
    check(not served(relay, sixth), "no sixth at a time")
    check(target.accepted <= 5, f"{target.accepted} reached the target")
    sixth.close()
    held.pop().close()

    def again():
        s = relay.connect()
        ok = served(relay, s)
        s.close() if not ok else held.append(s)
        return ok

    eventually(again, "one more when one has ended")
    for s in held:
        s.close()
    relay.stop()


def test_accept_rate():
    target = Listener(handler=saying("a"))
    relay = Relay("tcp:127.0.0.1:0", target.where, accept_rate="20/s")
    began = time.monotonic()
    for _ in range(60):
        equal(ask(relay.where), "a", "answer: late, not lost")
    took = time.monotonic() - began
    check(took > 1.0, f"60 connections at 20 a second took {took:.2f} s")
    relay.stop()


def transfer_rate(relay, size, connections=1):
    began = time.monotonic()
    load(relay.where, up=size, down=0, connections=connections)
    return time.monotonic() - began


def test_connection_rate():
    for engine in ("splice", "copy"):
        server = Server()
        relay = Relay("tcp:127.0.0.1:0", server.where, engine=engine, connection_rate="4M/s")
        took = transfer_rate(relay, "8M")
        check(1.2 < took < 6 * SLOW, f"{engine}: 8 MiB at 4 MB/s took {took:.2f} s")
        # Each connection has its own.
        took = transfer_rate(relay, "4M", connections=4)
        check(took < 5 * SLOW, f"{engine}: four of 4 MiB at once took {took:.2f} s")
        relay.stop()
        server.finish()


def test_route_rate():
    server = Server()
    relay = Relay("tcp:127.0.0.1:0", server.where, engine="splice", rate="4M/s")
    took = transfer_rate(relay, "2M", connections=4)
    check(1.2 < took < 6 * SLOW, f"8 MiB together at 4 MB/s took {took:.2f} s")
    relay.stop()
    got = relay.totals()
    check(got["spliced"] >= 8 << 20, f"it stays in splice: {got}")
    server.finish()


def push(s, over):
    """Sends until the test is over, or the connection is."""
    try:
        while not over.is_set():
            s.send(bytes(1 << 16))
    except OSError:
        pass


def test_route_rate_is_shared():
    """By all connections and both directions; small messages, too, have their turn."""
    received = [0] * 13

    def handler(c):
        """A byte says who it is; what follows is counted, and one that ends in a newline answered."""
        first = receive(c, 1)
        who = first[0] if first else -1
        if who == 0:
            threading.Thread(target=push, args=(c, over), daemon=True).start()
        while data := c.recv(1 << 18):
            received[who] += len(data)
            if data[-1:] == b"\n":
                c.sendall(data)

    over = threading.Event()
    target = Listener(handler=handler)
    for workers in (1, 2):
        over.clear()
        received[:] = [0] * len(received)
        relay = Relay("tcp:127.0.0.1:0", target.where, rate="8M/s", workers=workers)
        bulk = [relay.connect() for _ in received[:-1]]
        for i, s in enumerate(bulk):
            s.sendall(bytes([i]))
            threading.Thread(target=push, args=(s, over), daemon=True).start()
        small = relay.connect()
        small.sendall(bytes([len(bulk)]))
        down, messages, end = 0, 0, time.monotonic() + 3
        while time.monotonic() < end:
            small.sendall(b"question\n")
            equal(receive(small, 9), b"question\n", "answer")
            messages += 1
            while wait_readable(bulk[0], 0):
                down += len(bulk[0].recv(1 << 18))
        shares = [*received[:-1], down]
        over.set()
        for s in (*bulk, small):
            reset(s)
        check(min(shares) > max(shares) / 8, f"{workers} workers: shares of the rate: {shares}")
        check(messages >= 4, f"{workers} workers: {messages} answers to small messages in 3 s")
        relay.stop()


def test_route_rate_and_a_loop_that_is_awake():
    """Who looks more often, for another route's sake, has no more of the rate."""
    received = [0, 0]

    def handler(c):
        who = receive(c, 1)[0]
        while data := c.recv(1 << 18):
            received[who] += len(data)

    over = threading.Event()
    relay = Daemon({"name": "limited", "listen": "tcp:127.0.0.1:0", "rate": "8M/s",
                    "to": [Listener(handler=handler).where]},
                   {"name": "other", "listen": "tcp:127.0.0.1:0",
                    "to": [Listener(handler=echo).where]}, workers=2)
    limited, other = relay.all()
    bulk = [connect(limited) for _ in received]
    for i, s in enumerate(bulk):
        s.sendall(bytes([i]))
        threading.Thread(target=push, args=(s, over), daemon=True).start()
    eventually(lambda: min(received) > 0, "both move")
    talk = connect(other)
    received[:] = [0, 0]
    began = time.monotonic()
    while time.monotonic() < began + 3:
        talk.sendall(b"question")
        equal(receive(talk, 8), b"question", "answer")
    shares = received[:]
    over.set()
    for s in (*bulk, talk):
        reset(s)
    check(min(shares) > max(shares) / 2, f"shares of the rate: {shares}")
    check(sum(shares) > 12 << 20, f"the rate is used: {sum(shares)} bytes in 3 s")
    relay.stop()


def test_route_rate_and_many():
    """The more wait, the shorter are their turns. At the end all that still wait are cut."""
    target = Listener(handler=echo)
    relay = Relay("tcp:127.0.0.1:0", target.where, rate="8M/s", args=("--drain", "0s"))
    for _ in range(60):
        s = relay.connect()
        s.setblocking(False)
        s.send(bytes(4 << 20))
    small = relay.connect()
    messages, end = 0, time.monotonic() + 3
    while time.monotonic() < end:
        small.sendall(b"question")
        equal(receive(small, 8), b"question", "answer")
        messages += 1
    check(messages >= 6, f"{messages} answers to small messages in 3 s")
    relay.stop(leak=False)
    equal(relay.totals()["cut"], 61, "cut")


def test_a_rate_is_no_rest():
    """Bytes that wait for their rate keep the connection from being idle."""
    target = Listener()
    for limit in ("connection_rate", "rate"):
        relay = Relay("tcp:127.0.0.1:0", target.where, idle_timeout="500ms", **{limit: "1k/s"})
        client = relay.connect()
        client.sendall(bytes(4096))
        equal(len(receive(target.accept(), 3072)), 3072, f"{limit}: a second or so for each 1024")
        client.close()
        relay.stop()


def test_allow_and_deny():
    target = Listener(handler=saying("a"))
    relay = Relay("tcp:127.0.0.1:0", target.where, allow="127.0.1.0/24,127.0.2.2", deny="127.0.1.7")
    for source, want in (("127.0.1.1", "a"), ("127.0.1.255", "a"), ("127.0.2.2", "a"),
                         ("127.0.1.7", None), ("127.0.2.3", None), ("127.0.0.1", None)):
        equal(ask(relay.where, source=source), want, f"from {source}")
    relay.stop()


def test_deny_alone():
    target = Listener(handler=saying("a"))
    relay = Relay("tcp:127.0.0.1:0", target.where, deny="127.0.5.0/24")
    equal(ask(relay.where, source="127.0.5.1"), None, "denied")
    equal(ask(relay.where), "a", "everyone else")
    relay.stop()


def refused_at(relay, source):
    """One attempt that gets nothing; its descriptor does not stay."""
    with socket.socket() as s:
        s.settimeout(20 * SLOW)
        s.bind((source, 0))
        try:
            s.connect(("127.0.0.1", relay.port))
            return s.recv(1) == b""
        except (ConnectionResetError, ConnectionRefusedError):
            return True


def test_many_refusals():
    """Whoever is refused costs nothing that stays, is counted, and does not keep others out."""
    n = 20000 if LONG else 1000
    signal.alarm((300 if LONG else DEADLINE) * SLOW)
    target, nobody = Listener(handler=saying("a")), Listener()
    nobody.close()
    denying = Relay("tcp:127.0.0.1:0", target.where, deny="127.0.5.0/24")
    failing = Relay("tcp:127.0.0.1:0", nobody.where)
    for relay, source in ((denying, "127.0.5.1"), (failing, "127.0.0.1")):
        for _ in range(100):
            check(refused_at(relay, source), "refused")
        relay.idle_again()
        memory = relay.memory()
        for i in range(n):
            check(refused_at(relay, source), f"refused, number {i}")
            if relay is denying and i % 500 == 0:
                equal(ask(relay.where), "a", "who is allowed is served in between")
        relay.quiet(what=f": after {n} refusals")
        check(relay.memory() - memory < 256 << 10 or SLOW > 1,
              f"{relay.memory() - memory} bytes stay of {n} refusals")
        check(len(relay.err) < 20, f"{len(relay.err)} lines of log")
        relay.stop()
    equal(denying.totals()["refused"], n + 100, "refusals counted")
    equal(failing.totals()["connect"], n + 100, f"failures counted: {failing.err[-4:]}")
    equal(target.accepted, n // 500, "none of the denied reached the target")


def test_limited_reader_is_idle_between():
    """Waiting for its share of bandwidth costs no processor time."""
    target = Listener(handler=lambda c: c.sendall(bytes(8 << 20)))
    relay = Relay("tcp:127.0.0.1:0", target.where, connection_rate="100k/s")
    s = relay.connect()
    check(wait_readable(s, 5), "it flows")
    cpu, began = relay.cpu(), time.monotonic()
    while time.monotonic() - began < 2:
        s.recv(65536)
    load_ = (relay.cpu() - cpu) / (time.monotonic() - began)
    check(load_ < 0.3, f"100 kB a second cost {100 * load_:.0f}% CPU")
    s.close()
    relay.stop(leak=False)


main()
