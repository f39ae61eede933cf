"""Traps of who moves the bytes, and of the counters that tell: bulk is spliced, messages are
copied, neither by what costs more than it saves."""
import contextlib
import os
import socket
import threading
import time

from harness import (Listener, Relay, Server, check, equal, eventually, load, main, receive,
                     receive_all)
from setups import Daemon, held_up
from traps import ENGINES, block, stalled, unacknowledged


def test_T15_bulk_is_spliced():
    for engine in ("splice", "auto"):
        server = Server()
        relay = Relay("tcp:127.0.0.1:0", server.where, engine=engine)
        load(relay.where, up="64M", down="64M")
        relay.stop()
        got = relay.totals()
        check(got["spliced"] > 64 << 20, f"{engine}: of 128 MiB only this was spliced: {got}")
        server.finish()


def test_T18_counters_are_exact():
    """To the byte, whatever moved them."""
    sizes = (0, 1, 100, 65537, 3000001)
    for engine in ENGINES:
        target = Listener()
        relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine)
        up = down = 0
        for size in sizes:
            client = relay.connect()
            server = target.accept()
            sender = threading.Thread(target=lambda c=client, n=size: (
                c.sendall(bytes(n)), c.shutdown(socket.SHUT_WR)))
            sender.start()
            equal(len(receive_all(server)), size, f"{engine}: bytes up")
            sender.join()
            server.sendall(bytes(size // 2))
            server.close()
            equal(len(receive_all(client)), size // 2, f"{engine}: bytes down")
            client.close()
            up, down = up + size, down + size // 2

        relay.stop()
        got = relay.totals()
        equal((got["connections"], got["bytes_in"], got["bytes_out"]), (len(sizes), up, down),
              f"{engine}: {got}")
        equal(got["spliced"] + got["copied"], up + down, f"{engine}: {got}")
        if engine != "auto":
            equal(got["copied" if engine == "splice" else "spliced"], 0, f"{engine} alone: {got}")


def test_T18_counters_are_fresh():
    """On an open connection, as the daemon's status has them a second later at most."""
    target = Listener()
    relay = Daemon({"name": "web", "listen": "tcp:127.0.0.1:0", "to": [target.where]})
    client = relay.connect()
    server = target.accept()
    data = block(300001)
    want = 0
    for _ in range(5):
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        equal(len(receive(server, len(data))), len(data), "bytes up")
        sender.join()
        server.sendall(b"ok")
        receive(client, 2)
        want += 1
        time.sleep(1)
        got = relay.status()[0]
        equal((got["bytes_in"], got["bytes_out"], got["active"]), (want * len(data), want * 2, 1),
              "counters of the open connection")
    client.close()
    server.close()
    relay.stop()


def test_T19_auto_chooses_well():
    """Which engine moved what, by the counters. How fast that is, the benchmark tells."""
    first = 16384  # what is copied before bulk is known for bulk: COPY_BYTES of move.c
    target = Listener()
    relay = Daemon({"name": "web", "listen": "tcp:127.0.0.1:0", "to": [target.where],
                    "engine": "auto"})
    client = relay.connect()
    # All of a write must find room in the queues while the relay rests.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    server = target.accept()
    total = [0, 0]

    def moved(size, times, at_once):
        """Bytes (copied, spliced) for this many writes, each of which waits for the one before."""
        for _ in range(times):
            # Held up it finds all of a write, however busy the machine is.
            with held_up(relay) if at_once else contextlib.nullcontext():
                client.sendall(bytes(size))
            equal(len(receive(server, size)), size, f"a write of {size} bytes")
        now = [0, 0]

        def settled():
            route = relay.status()[0]
            now[:] = route["copied"], route["spliced"]
            return sum(now) == sum(total) + size * times
        eventually(settled, lambda: f"counters: {now}, before {total}, {times} writes of {size}")
        got = now[0] - total[0], now[1] - total[1]
        total[:] = now
        return got

    for size in (1, 64, 4096):
        equal(moved(size, 30, False), (30 * size, 0), f"copied, spliced: messages of {size} bytes")
    for size in (65536, 200000):
        copied, spliced = moved(size, 20, True)
        check(copied <= 3 * first, f"bulk of {size} bytes: {copied} copied, {spliced} spliced")
        # Back again: two small turns tell. A slow relay has several messages in one turn, as the
        # next one comes before it has seen that there is none.
        copied, spliced = moved(64, 200, False)
        check(spliced <= copied, f"messages after bulk: {copied} copied, {spliced} spliced")
    client.close()
    server.close()
    relay.stop()


def test_T19_bulk_at_the_beginning_is_spliced_whole():
    """Whichever side speaks first, none of it is copied, by the counters; a message still is."""
    first = 16384  # what one copy takes: COPY_BYTES of move.c
    bulk, times = block(8 * first), 4
    target = Listener()
    for side in ("client", "target"):
        relay = Relay("tcp:127.0.0.1:0", target.where, engine="auto")
        for _ in range(times):
            pair = []
            if side == "target":  # its connection must stand before the relay rests
                client = relay.connect()
                pair = [target.accept(), client]
            # The relay finds the queue as it is when a good part of it has arrived.
            with held_up(relay):
                speaks = pair[0] if pair else relay.connect()
                speaks.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                speaks.sendall(bulk)
                eventually(lambda s=speaks: unacknowledged(s) <= len(bulk) - first,
                           f"{side}: bulk in the relay's queue")
            hears = pair[1] if pair else target.accept()
            check(receive(hears, len(bulk)) == bulk, f"{side}: bytes differ")
            hears.sendall(b"thanks")  # the other direction begins with a message
            equal(receive(speaks, 6), b"thanks", f"{side}: answer")
            speaks.close()
            hears.close()
        relay.stop()
        got = relay.totals()
        equal(got["copied"] + got["spliced"], times * (len(bulk) + 6), f"{side}: {got}")
        check(6 * times <= got["copied"] < first, f"{side} begins with bulk: {got}")
    target.close()


def test_T24_no_splice_by_io_uring_and_no_sockmap():
    """What io_uring splices, it always hands to threads it makes (iou-wrk), named in the process
    for seconds after; the sends that the relay gives it need none."""
    for engine in ENGINES:
        relay, client, server, _ = stalled(engine)
        other = Server()
        bulk = Relay("tcp:127.0.0.1:0", other.where, engine=engine)
        load(bulk.where, connections=4, concurrent=4, up="16M", down="16M")
        load(bulk.where, connections=30, concurrent=30, up="20k", down="20k", chunk=200)
        for r in (relay, bulk):
            bad = [link for _, link in r.links() if "bpf" in link]
            for task in os.listdir(f"/proc/{r.pid}/task"):
                with open(f"/proc/{r.pid}/task/{task}/comm", encoding="ascii") as f:
                    name = f.read()
                if name.startswith("iou-"):
                    bad.append(name)
            check(not bad, f"{engine}: {bad}")
        client.close()
        server.close()
        relay.stop()
        bulk.stop()
        other.finish()


main()
