"""Byte-exact transfers, both directions at once, over every pair of endpoints, and resets and
ends at every moment of a connection's life."""
import itertools
import os
import socket
import threading
import time

from harness import (CULVERT, LONG, Listener, Relay, Server, check, connect, ended, equal,
                     eventually, load, main, path, receive_all, reset, try_connection,
                     wait_readable)

KINDS = ("tcp4", "tcp6", "unix", "abstract")
SIZES = ("0", "1", "100", "1448", "64k", "8M") + (("64M",) if LONG else ())


def endpoint(kind, name):
    return {"tcp4": "tcp:127.0.0.1:0", "tcp6": "tcp:[::1]:0", "unix": "unix:" + path(name),
            "abstract": f"unix:@culvert-{os.getpid()}-{name}"}[kind]


def have_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as s:
            s.bind(("::1", 0))
        return True
    except OSError:
        return False


def over_every_pair(**settings):
    kinds = [k for k in KINDS if k != "tcp6" or have_ipv6()]
    for number, (a, b) in enumerate(itertools.product(kinds, kinds)):
        server = Server(endpoint(b, f"target{number}"))
        listen = endpoint(a, f"listen{number}")
        relay = Relay(listen, server.where, **settings)
        where = listen if listen.startswith("unix") else relay.where
        for size in SIZES:
            load(where, up=size, down=size)
        load(where, up="1M", down="100", kind="after-eof")
        load(where, up="100", down="1M", kind="server-first")
        relay.stop()
        server.finish()


def test_every_pair_of_endpoints_auto():
    over_every_pair()


def test_every_pair_of_endpoints_splice():
    over_every_pair(engine="splice")


def test_every_pair_of_endpoints_copy():
    over_every_pair(engine="copy")


def test_many_workers():
    server = Server()
    relay = Relay("tcp:127.0.0.1:0", server.where, workers=3)
    load(relay.where, connections=300, concurrent=30, up="200k", down="200k")
    load(relay.where, connections=300, concurrent=30, up="1M", down="1M", kind="random")
    relay.stop()
    server.finish()


def test_one_direction_alone():
    server = Server()
    for engine in ("auto", "splice", "copy"):
        relay = Relay("tcp:127.0.0.1:0", server.where, engine=engine)
        load(relay.where, up="8M", down="0")
        load(relay.where, up="0", down="8M")
        relay.stop()
    server.finish()


def test_resets_after_every_few_bytes():
    """Each side resets after n bytes, while both have more to send."""
    server = Server()
    for engine in ("auto", "splice", "copy"):
        relay = Relay("tcp:127.0.0.1:0", server.where, engine=engine)
        for stop in ("0", "1", "1000", "70k", "300k", "999k"):
            for kind in ("client-reset", "server-reset"):
                load(relay.where, connections=10, up="1M", down="1M", stop=stop, kind=kind)
        # Nothing of them is left over for those that follow.
        load(relay.where, connections=20, up="300k", down="300k")
        relay.stop()
    server.finish()


def test_client_leaves_before_the_target_answers():
    """The client is gone, by an end or by a reset, while the relay still connects."""
    target = Listener(backlog=1)
    relay = Relay("tcp:127.0.0.1:0", target.where, connect_timeout="1s")
    for turn in range(40):
        s = relay.connect()
        if turn % 2:
            s.sendall(b"bytes that nobody will read")
        if turn % 4 < 2:
            reset(s)
        else:
            s.close()
    target.close()
    relay.idle_again(20)
    relay.stop()


def test_refused_target():
    target = Listener()
    where = target.where
    target.close()
    relay = Relay("tcp:127.0.0.1:0", where)
    for _ in range(5):
        began = time.monotonic()
        try_connection(relay.where)
        check(time.monotonic() - began < 10, "told soon")
    relay.stop()


def test_system_calls_fail_now_and_then():
    # No made-up EAGAIN: an edge-triggered loop may trust that one, for the kernel never lies so.
    for faults in (["pipe2:EMFILE:2:1"], ["splice:EINTR:3:4"], ["splice:EINVAL:6:1"],
                   ["epoll_wait:EINTR:2:5", "epoll_pwait2:EINTR:2:5", "epoll_pwait:EINTR:2:5"],
                   ["sendto:EINTR:2:3", "recvfrom:EINTR:3:3"],
                   ["accept4:ECONNABORTED:2:2", "splice:ENOMEM:9:3"]):
        for engine in ("splice", "auto"):
            server = Server()
            relay = Relay("tcp:127.0.0.1:0", server.where, engine=engine, faults=faults)
            got = load(relay.where, connections=6, concurrent=2, up="1M", down="1M",
                       tolerate="ENOMEM" in str(faults))
            check(not got["failure"].startswith("client plain") or "wrong" not in got["failure"],
                  f"{faults}: {got['failure']}")
            relay.stop()
            server.finish(tolerate="ENOMEM" in str(faults))


def test_file_to_client():
    data = os.urandom(5_000_001)
    for size in (0, 1, 65536, len(data)):
        name = path(f"file{size}")
        with open(name, "wb") as f:
            f.write(data[:size])
        for listen in ("tcp:127.0.0.1:0", "unix:" + path(f"file-listen{size}")):
            relay = Relay(listen, "file:" + name)
            s = connect(relay.where if listen[0] == "t" else listen)
            got = receive_all(s)
            check(got == data[:size], f"{listen}, {size} bytes: got {len(got)}")
            s.close()
            relay.stop()


def test_client_to_file():
    data = os.urandom(5_000_001)
    for engine in ("auto", "splice", "copy"):
        name = path("append-" + engine)
        relay = Relay("tcp:127.0.0.1:0", f"file:{name}?append", engine=engine)
        for part in (data[:1], data[1:1000], data[1000:]):
            before = os.path.getsize(name) if os.path.exists(name) else 0
            s = relay.connect()
            s.sendall(part)
            s.shutdown(socket.SHUT_WR)
            receive_all(s)
            s.close()
            eventually(lambda b=before, n=len(part): os.path.getsize(name) == b + n,
                       f"{engine}: {len(part)} bytes in the file")
        with open(name, "rb") as f:
            check(f.read() == data, f"{engine}: bytes differ")
        relay.stop()


def test_routes_that_append_to_one_file():
    """By two routes and two names, on several workers: nothing is written over."""
    names = [path("log"), path("link")]
    with open(names[0], "wb") as f:
        f.write(b"head")
    os.link(*names)
    size, n = 4_000_000, 3
    relay = Relay(command=[CULVERT, "relay", "tcp:127.0.0.1:0", f"file:{names[0]}?append",
                           "tcp:127.0.0.1:0", f"file:{names[1]}?append"], workers=2)

    def send(where, byte):
        s = connect(where)
        s.sendall(byte * size)
        s.shutdown(socket.SHUT_WR)
        receive_all(s)
        s.close()

    letters = [bytes([ord("a") + i]) for i in range(2 * n)]
    threads = [threading.Thread(target=send, args=(relay.all()[i % 2], letter))
               for i, letter in enumerate(letters)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(40)
    relay.stop()
    with open(names[0], "rb") as f:
        got = f.read()
    equal(got[:4], b"head", "what was there")
    equal([got.count(letter, 4) for letter in letters], [size] * 2 * n, "bytes of each connection")
    equal(len(got), 4 + 2 * n * size, "bytes in the file")


def test_pipe_as_target():
    name = path("fifo")
    os.mkfifo(name)
    got = []
    reader = threading.Thread(target=lambda: got.append(open(name, "rb").read()), daemon=True)
    reader.start()
    data = os.urandom(300_000)
    relay = Relay("tcp:127.0.0.1:0", f"file:{name}?append")
    s = relay.connect()
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    receive_all(s)
    s.close()
    reader.join(20)
    check(got and got[0] == data, f"the pipe's reader got {len(got[0]) if got else 'nothing'}")
    relay.stop()


def test_a_fifo_is_sent_when_it_has_a_writer():
    """A client that is there first waits; it has what the writer writes, and then the end."""
    name = path("fifo")
    os.mkfifo(name)
    data = os.urandom(300_000)
    for engine in ("splice", "copy", "auto"):
        relay = Relay("tcp:127.0.0.1:0", f"file:{name}", engine=engine)
        for written in (data, b""):
            s = relay.connect()
            check(not wait_readable(s, 0.2), f"{engine}: neither bytes nor an end before a writer")
            relay.quiet(what=f": {engine}, no writer")
            with open(name, "wb") as f:  # would wait for ever, did the relay not read
                f.write(written)
            check(receive_all(s) == written, f"{engine}: what was written")
            s.close()
        relay.stop()


def test_a_fifo_whose_writer_has_left():
    """Its bytes are still there when a client comes: another reader has left them. After them is
    the end."""
    name = path("fifo")
    os.mkfifo(name)
    reader = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    for engine in ("splice", "copy", "auto"):
        relay = Relay("tcp:127.0.0.1:0", f"file:{name}", engine=engine)
        with open(name, "wb") as f:
            f.write(b"left")
        s = relay.connect(timeout=3)
        equal(receive_all(s), b"left", engine)
        s.close()
        relay.stop()
    os.close(reader)


def test_a_full_disk_is_told_once():
    for engine in ("splice", "copy"):
        relay = Relay("tcp:127.0.0.1:0", "file:/dev/full?append", engine=engine)
        for _ in range(20):
            s = relay.connect()
            s.sendall(bytes(10))
            equal(ended(s), "reset", f"{engine}: nothing of it was kept")
            s.close()
        relay.stop()
        equal(len(relay.logged("/dev/full: ")), 1, f"{engine}: {relay.err}")
        check(relay.logged("/dev/full: No space left.*make room"), f"{engine}: {relay.err}")
        equal(relay.totals()["reset_target"], 20, f"{engine}: ends counted")


def test_inherited_listener():
    """Socket activation: the listener is descriptor 3, told by LISTEN_FDS or by number."""
    server = Server()
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
        os.dup2(s.fileno(), 200)
        os.set_inheritable(200, True)
        relay = Relay("fd:200", server.where, fds=(200,))
        os.close(200)
        load(f"tcp:127.0.0.1:{port}", connections=5, up="100k", down="100k")
        relay.stop()
    server.finish()


def test_names_are_resolved():
    server = Server()
    relay = Relay("tcp:localhost:0", server.where.replace("127.0.0.1", "localhost"))
    load(f"tcp:127.0.0.1:{relay.port}" if "127.0.0.1" in relay.where else relay.where,
         connections=5, up="10k", down="10k")
    relay.stop()
    server.finish()


main()
