"""Traps of a stream that stalls, ends, half-closes or is reset: nothing of it is lost, the other
side learns of it, and nothing spins meanwhile."""
import socket
import threading
import time

from harness import (SLOW, Listener, Relay, check, connect, ended, equal, eventually, main, path,
                     receive, receive_all, reset, wait_readable)
from setups import joined
from traps import (ENGINES, block, check_filled, fill, stalled, stalled_both_ways,
                   unacknowledged)


def test_T1_T2_T3_full_pipe_is_drained_whole():
    for relay, source, sink, sent in (x for engine in ENGINES for x in stalled_both_ways(engine)):
        what = relay.argv[-1]
        for _ in range(3):
            # In steps smaller than a pipe: each must wake the writer again.
            part = receive(sink, sent // 2)
            check_filled(part, what)
            part += receive(sink, sent - len(part))
            equal(len(part), sent, f"{what}: all that was sent")
            check_filled(part, what)
            source.sendall(b"?")
            equal(receive(sink, 1), b"?", f"{what}: after the stall")
            sink.sendall(b"!")
            equal(receive(source, 1), b"!", f"{what}: the other way")
            sent = fill(source)
        receive(sink, sent)
        source.close()
        equal(sink.recv(1), b"", f"{what}: end of stream")
        sink.close()
        relay.stop()


def test_T1_stall_while_the_source_has_nothing_more():
    """The pipe is full, the source is empty: its next byte must still be noticed."""
    for relay, source, sink, sent in (x for engine in ENGINES for x in stalled_both_ways(engine)):
        what = relay.argv[-1]
        equal(len(receive(sink, sent)), sent, f"{what}: all that was sent")
        for i in range(20):
            source.sendall(bytes([i]))
            equal(receive(sink, 1), bytes([i]), f"{what}: byte {i} after the stall")
        source.close()
        sink.close()
        relay.stop()


def test_T4_end_of_stream_waits_for_the_pipe():
    for engine in ENGINES:
        relay, client, server, sent = stalled(engine)
        client.shutdown(socket.SHUT_WR)
        time.sleep(0.2)
        got = receive_all(server)
        equal(len(got), sent, f"{engine}: bytes before the end")
        check_filled(got, engine)
        server.sendall(b"still open")
        server.close()
        equal(receive_all(client), b"still open", f"{engine}: the other direction")
        client.close()
        relay.stop()


def test_T4_hang_up_of_a_unix_peer_discards_nothing():
    for engine in ENGINES:
        name = path("t4-" + engine)
        relay, client, server = joined("unix:" + name + "-in", "unix:" + name, engine=engine)
        # Both directions end at once: EPOLLHUP with data queued in the relay's sockets.
        data = block(100000)
        server.sendall(data)
        server.close()
        time.sleep(0.1)
        got = receive_all(client)
        equal(len(got), len(data), f"{engine}: bytes before the hang-up")
        check(got == data, f"{engine}: bytes differ")
        client.close()
        relay.stop()


def test_T5_directions_close_independently():
    for engine in ENGINES:
        target = Listener()
        relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine)
        for first in ("client", "server"):
            client = relay.connect()
            server = target.accept()
            a, b = (client, server) if first == "client" else (server, client)
            a.sendall(b"request")
            a.shutdown(socket.SHUT_WR)
            equal(receive_all(b), b"request", f"{engine}: {first} ends first")
            for i in range(5):
                b.sendall(b"x" * 1000)
                equal(len(receive(a, 1000)), 1000, f"{engine}: {first} half-closed, part {i}")
            check(not wait_readable(a, 0.1 / SLOW), f"{engine}: open until the other side closes")
            b.close()
            equal(receive_all(a), b"", f"{engine}: the end")
            a.close()
        relay.stop()


def test_T5_half_closed_has_an_end():
    relay, client, server = joined(half_close_timeout="500ms")
    client.shutdown(socket.SHUT_WR)
    equal(server.recv(1), b"", "the end that the client sent")
    began = time.monotonic()
    # The server holds its side open and is silent.
    ended(client)
    check(time.monotonic() - began >= 0.3, "not cut before its time")
    ended(server)
    relay.idle_again()
    relay.stop()


def test_T5_a_deaf_target_has_an_end():
    """It takes nothing any more, says nothing, and stays: only a unix socket can."""
    relay, client, server = joined(to="unix:" + path("deaf"), half_close_timeout="500ms")
    server.shutdown(socket.SHUT_RD)
    client.sendall(b"x")
    ended(client)
    relay.idle_again()
    server.close()
    relay.stop()


def test_T6_no_busy_loop():
    for engine in ENGINES:
        relay, client, server, _ = stalled(engine)
        relay.quiet(what=f": {engine}, stalled reader")
        client.shutdown(socket.SHUT_WR)
        relay.quiet(what=f": {engine}, stalled reader and RDHUP")
        server.close()
        client.close()
        relay.stop()


def test_T6_no_busy_loop_half_closed():
    relay, client, server = joined()
    client.shutdown(socket.SHUT_WR)
    equal(server.recv(1), b"", "end of stream")
    relay.quiet(what=": half-closed")
    server.close()
    client.close()
    relay.stop()


def test_T6_no_busy_loop_unix_hang_up():
    for engine in ENGINES:
        relay, client, server = joined("unix:" + path("t6-" + engine), rcvbuf=4096, engine=engine)
        fill(client)
        client.close()  # EPOLLHUP for good while the target takes nothing
        relay.quiet(what=f": {engine}, unix HUP")
        server.close()
        relay.stop()


def test_T22_reset_becomes_reset_both_ways():
    for engine in ENGINES:
        target = Listener()
        relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine)
        for size in (0, 1000, 500000):
            for who in ("client", "server"):
                client = relay.connect()
                server = target.accept()
                a, b = (client, server) if who == "client" else (server, client)
                if size:
                    sender = threading.Thread(target=a.sendall, args=(bytes(size),))
                    sender.start()
                    equal(len(receive(b, size)), size, f"{engine}: before the reset")
                    sender.join()
                reset(a)
                equal(ended(b), "reset", f"{engine}: {who} resets after {size} bytes")
                b.close()
        relay.stop()


def test_T22_what_came_before_a_reset_arrives():
    """The relay holds it for a reader that is slow; a reset behind it must not overtake it."""
    for engine in ENGINES:
        target = Listener()
        relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine)
        for who in ("client", "server"):
            client = connect(relay.where, rcvbuf=4096)
            server = target.accept()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            a, b = (client, server) if who == "client" else (server, client)
            data = block(100000)
            a.sendall(data)
            eventually(lambda s=a: not unacknowledged(s), "the relay has it all")
            reset(a)
            time.sleep(0.1)
            check(receive(b, len(data)) == data, f"{engine}: what the {who} sent before its reset")
            equal(ended(b), "reset", f"{engine}: the {who}'s reset")
            b.close()
        relay.stop()


def test_T22_an_answer_outlives_who_gave_it():
    """The target answers and is gone; what the client still sends to it finds nobody, and must not
    cost the answer, which waits in the relay for a slow client."""
    for engine in ENGINES:
        target = Listener()
        relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine)
        client = connect(relay.where, rcvbuf=4096)
        server = target.accept()
        sent, got = fill(server), b""
        while unacknowledged(server):  # what its own kernel still has goes with it
            got += receive(client, 4096)
        server.close()
        for _ in range(5):
            client.sendall(b"more")
            time.sleep(0.05)
        got += receive(client, sent - len(got))
        equal(len(got), sent, f"{engine}: bytes of the answer")
        check_filled(got, engine)
        client.close()
        relay.stop()


def test_T22_data_before_an_end_is_never_lost():
    """The server answers and ends while the client still sends: what was queued for the client
    before the end must reach it."""
    for engine in ENGINES:
        target = Listener()
        relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine)
        for _ in range(10):
            client = relay.connect()
            server = target.accept()
            data = block(100000)
            server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            client.sendall(b"more")
            time.sleep(0.02)
            got = receive_all(client)
            equal(len(got), len(data), f"{engine}: the answer")
            client.close()
            server.close()
        relay.stop()


main()
