"""Traps of a stream that stalls, ends, half-closes or is reset: nothing of it is lost, the other
side learns of it, and nothing spins meanwhile."""
import socket
import threading
import time

from harness import (SLOW, Listener, Relay, check, ended, equal, main, path, receive, receive_all,
                     reset, wait_readable)
from setups import joined
from traps import ENGINES, block, check_filled, fill, stalled


def test_T1_T2_T3_full_pipe_is_drained_whole():
    for engine in ENGINES:
        relay, client, server, sent = stalled(engine)
        for _ in range(3):
            # In steps smaller than a pipe: each must wake the writer again.
            part = receive(server, sent // 2)
            check_filled(part, engine)
            part += receive(server, sent - len(part))
            equal(len(part), sent, f"{engine}: all that was sent")
            check_filled(part, engine)
            client.sendall(b"?")
            equal(receive(server, 1), b"?", f"{engine}: after the stall")
            server.sendall(b"!")
            equal(receive(client, 1), b"!", f"{engine}: the other way")
            sent = fill(client)
        receive(server, sent)
        client.close()
        equal(server.recv(1), b"", f"{engine}: end of stream")
        server.close()
        relay.stop()


def test_T1_stall_while_the_source_has_nothing_more():
    """The pipe is full, the source is empty: its next byte must still be noticed."""
    for engine in ENGINES:
        relay, client, server, sent = stalled(engine)
        got = receive(server, sent)
        equal(len(got), sent, f"{engine}: all that was sent")
        for i in range(20):
            client.sendall(bytes([i]))
            equal(receive(server, 1), bytes([i]), f"{engine}: byte {i} after the stall")
        client.close()
        server.close()
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


def test_T22_data_before_an_end_is_never_lost():
    """The server answers, ends, and closes while the client still sends: what was queued for
    the client before the end must reach it."""
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
