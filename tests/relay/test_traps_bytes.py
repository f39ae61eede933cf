"""Traps that change, lose or repeat bytes: in odd segments, in small pipes, past a fallback, behind
a header, around an urgent byte, from and to files, past 32 bits."""
import os
import socket
import threading

from harness import (ENDS, LONG, Listener, Process, Relay, Server, check, connect, ended, equal,
                     eventually, load, main, path, receive, receive_all)
from setups import joined
from traps import ENGINES, block, load_in_segments, sink


def byte_exact(engine):
    server = Server()
    relay = Relay("tcp:127.0.0.1:0", server.where, engine=engine)
    load_in_segments(relay)
    for chunk in (1, 100, 1448, 0):
        load(relay.where, up="20k", down="200k", chunk=chunk, server_chunk=chunk,
             rcvbuf=16384, sndbuf=16384)
    relay.stop()
    server.finish()


def test_T8_byte_exact_in_any_segments_spliced():
    byte_exact("splice")


def test_T8_byte_exact_in_any_segments_copied():
    byte_exact("copy")


def test_T8_byte_exact_in_any_segments_auto():
    byte_exact("auto")


def test_T8_byte_exact_in_the_smallest_pipes():
    """fcntl(F_SETPIPE_SZ) fails, as it does past pipe-user-pages-soft."""
    server = Server()
    relay = Relay("tcp:127.0.0.1:0", server.where, engine="splice", faults=["fcntl@1=1031:EPERM"])
    load_in_segments(relay, "8M")
    relay.stop()
    server.finish()


def test_T14_fallback_in_mid_connection_loses_nothing():
    """splice fails from its n-th call on: at odd and even n, into and out of the pipe."""
    for error in ("EINVAL", "ENOSYS", "EPERM"):
        for nth in (1, 2, 3, 4, 7, 20, 33):
            server = Server()
            relay = Relay("tcp:127.0.0.1:0", server.where, engine="splice",
                          faults=[f"splice:{error}:{nth}"])
            load(relay.where, connections=3, up="2M", down="2M", rcvbuf=16384)
            relay.stop()
            server.finish()


def test_T16_what_was_read_goes_out_before_splicing():
    """The PROXY header and payload behind it in one segment, and bulk after both."""
    for engine in ENGINES:
        target = Listener()
        relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine, proxy_accept="yes",
                      proxy_trust="127.0.0.0/8", proxy_send="v1")
        for early in (b"", b"x", b"early bytes\r\n" * 50):
            data = block(3 << 20)
            client = relay.connect()
            header = b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\n"
            sender = threading.Thread(target=lambda c=client, e=early, d=data: (
                c.sendall(header + e + d), c.shutdown(socket.SHUT_WR)))
            sender.start()
            server = target.accept()
            got = receive_all(server)
            sender.join()
            line, _, rest = got.partition(b"\r\n")
            equal(line + b"\r\n", header, f"{engine}: the header passed on")
            check(rest == early + data, f"{engine}: payload after the header")
            server.close()
            client.close()
        relay.stop()


def test_T21_urgent_byte():
    for engine in ENGINES:
        relay, client, server = joined(engine=engine)
        before, after = block(200000, 1), block(200000, 2)
        sender = threading.Thread(target=lambda c=client, b=before, a=after: (
            c.sendall(b), c.send(b"!", socket.MSG_OOB), c.sendall(a)))
        sender.start()
        got = receive(server, 400001)
        sender.join()
        # RFC 6093: it is part of the stream.
        check(got == before + b"!" + after, f"{engine}: bytes differ")
        client.send(b"!", socket.MSG_OOB)
        relay.quiet(what=f": {engine}, an urgent byte waits")
        client.sendall(b"end")
        client.shutdown(socket.SHUT_WR)
        equal(receive_all(server), b"!end", f"{engine}: the urgent byte and what is behind it")
        server.close()
        client.close()
        relay.stop()


def test_T26_files():
    """Appending, several at once, an end that is cut off or grows while it is sent."""
    name = path("append")
    with open(name, "wb") as f:
        f.write(b"head\n")
    relay = Relay("tcp:127.0.0.1:0", f"file:{name}?append")
    data = block(2 << 20)
    for _ in range(2):
        s = relay.connect()
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        receive_all(s)
        s.close()
    eventually(lambda: os.path.getsize(name) == 5 + 2 * len(data),
               lambda: f"{os.path.getsize(name)} bytes, want {5 + 2 * len(data)}")
    with open(name, "rb") as f:
        check(f.read() == b"head\n" + data + data, "what was appended")
    relay.stop()

    name = path("source")
    with open(name, "wb") as f:
        f.write(data)
    relay = Relay("tcp:127.0.0.1:0", "file:" + name)
    s = relay.connect()
    check(receive_all(s) == data, "the file")
    s.close()
    # Cut off while its reader is stalled: the stream ends, and the relay lives on and is idle.
    with open(name, "wb") as f:
        f.truncate(256 << 20)
    s = connect(relay.where, rcvbuf=4096)
    equal(len(receive(s, 100000)), 100000, "its beginning")
    os.truncate(name, 0)
    check(len(receive_all(s)) < 256 << 20 if ended(s) == "reset" else True, "it ends")
    s.close()
    relay.quiet(what=": after a truncated file")
    with open(name, "wb") as f:
        f.write(b"small")
    s = relay.connect()
    equal(receive_all(s), b"small", "the file as it is now")
    s.close()
    relay.stop()


def test_T27_more_than_32_bits_on_one_connection():
    """Over 4 GiB through one connection, counted to the byte."""
    size = (20 << 30 if LONG else (4 << 30)) + 4321
    relay = Relay("tcp:127.0.0.1:0", sink(), access_log="stderr")
    bulk = Process([ENDS, "bulk", relay.where, "1", str(size)])
    equal(bulk.wait(50), 0, f"bulk: {bulk.err}")
    relay.stop()
    equal(relay.totals()["bytes_in"], size, f"bytes counted: {relay.totals()}")
    check(relay.logged(f"client=.* bytes_in={size} "), f"bytes in the access log: {relay.err}")


main()
