"""Traps that cost time: delayed acknowledgements, gathered writes, tiny buffers, a neighbour in
bulk, and a timer that forgets one of the directions."""
import statistics
import time

from harness import (ENDS, SLOW, Listener, Process, Relay, Server, check, echo, ended, equal,
                     load, main, receive)
from setups import joined
from traps import ENGINES, sink


def test_T7_no_40_or_200_ms():
    """The quickest of a few tries at each size: a delayed ACK or MORE timer spoils them all."""
    def answer(c):
        while True:
            head = receive(c, 4)
            if len(head) < 4:
                return
            size = int.from_bytes(head, "big")
            receive(c, size)
            c.sendall(b"k" * size)

    for engine in ENGINES:
        target = Listener(handler=answer)
        relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine)
        client = relay.connect()
        for size in (1, 100, 1448, 1449, 4096, 16384, 20000, 65536, 65537, 100001, 300001):
            best = 1e9
            for _ in range(12):
                began = time.monotonic()
                client.sendall(size.to_bytes(4, "big") + b"q" * size)
                equal(len(receive(client, size)), size, f"{engine}: answer")
                best = min(best, time.monotonic() - began)
                if best < 0.01:
                    break
            check(best < 0.035,
                  f"{engine}: {size} bytes there and back: {1000 * best:.0f} ms at best")
        client.close()
        relay.stop()


def test_T7_small_writes_are_not_gathered():
    """Nagle on the relay's sockets would hold the second write until the first's delayed ACK, and
    who talks to and fro delays it: an answer follows each pair."""
    for engine in ENGINES:
        relay, client, server = joined(engine=engine)
        for a, b, way in ((client, server, "up"), (server, client, "down")):
            took = []
            for _ in range(60):
                a.sendall(b"1")
                receive(b, 1)
                began = time.monotonic()
                a.sendall(b"2")
                receive(b, 1)
                took.append(time.monotonic() - began)
                b.sendall(b"answer")
                receive(a, 6)
            middle = statistics.median(took)
            check(middle < 0.03, f"{engine} {way}: the second write waits {1000 * middle:.0f} ms")
        client.close()
        server.close()
        relay.stop()


def test_T17_either_direction_refreshes_the_idle_timer():
    target = Listener()
    relay = Relay("tcp:127.0.0.1:0", target.where, idle_timeout="1s")
    for way in ("up", "down"):
        client = relay.connect()
        server = target.accept()
        a, b = (client, server) if way == "up" else (server, client)
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            a.sendall(b".")
            equal(receive(b, 1), b".", f"{way}: a byte now and then keeps it alive")
            time.sleep(0.1)
        began = time.monotonic()
        ended(b)
        took = time.monotonic() - began
        check(0.5 < took < 10 * SLOW, f"{way}: cut after {took:.1f} s of silence, want 1")
        ended(a)
    relay.idle_again()
    relay.stop()


def test_T20_no_stall_at_tiny_buffers():
    """Small, but not so small that the kernel itself drops segments and waits for its timer."""
    for engine in ENGINES:
        server = Server("tcp:127.0.0.1:0", "--rcvbuf", 8192, "--sndbuf", 4096)
        relay = Relay("tcp:127.0.0.1:0", server.where, engine=engine)
        for up, down in (("256k", "256k"), ("256k", 0), (0, "256k"), ("256k", "256k")):
            load(relay.where, up=up, down=down, rcvbuf=8192, sndbuf=4096)
        relay.stop()
        server.finish()


def test_T23_bulk_does_not_starve_others():
    """One loop has a flow in bulk: small messages must still get through. How much of it moves in
    one turn of the loop is in the unit test of move.c."""
    for engine in ENGINES:
        target = Listener(handler=echo)
        relay = Relay("tcp:127.0.0.1:0", target.where, sink(), engine=engine)
        small = relay.connect()
        small.sendall(b"first")
        equal(receive(small, 5), b"first", "the first connection goes to the first target")
        bulk = Process([ENDS, "bulk", relay.where, "1", str(1 << 40)])
        time.sleep(0.3)
        took = []
        for _ in range(100):
            began = time.monotonic()
            small.sendall(b"p" * 64)
            equal(len(receive(small, 64)), 64, f"{engine}: an answer beside bulk")
            took.append(time.monotonic() - began)
        middle = statistics.median(took)
        check(bulk.p.poll() is None, f"bulk goes on: {bulk.err}")
        check(middle < 0.02 * SLOW, f"{engine}: beside bulk a message takes {1000 * middle:.1f} ms")
        bulk.close()
        small.close()
        relay.stop()


main()
