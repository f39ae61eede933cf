"""One test for each of the 27 traps that relays of the field fell into; the number is in the
test's name. Each must hold for every engine of movement that the trap concerns."""
import fcntl
import json
import os
import shutil
import signal
import socket
import statistics
import struct
import termios
import threading
import time

from harness import (CULVERT, ENDS, FAULT, LONG, SLOW, Listener, Process, Relay, Server, Skip,
                     check, connect, echo, ended, equal, eventually, keep, load, main, path,
                     receive, receive_all, reset, run, try_connection, wait_readable)

ENGINES = ("splice", "copy", "auto")


class Hog:
    """A process that takes all the pages a user may have in pipes; `size` is what a new pipe of
    that user has then. Forked without exec: the user may not be allowed to run our Python."""

    def __init__(self, uid):
        ours, theirs = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.setresuid(uid, uid, uid)
                os.write(theirs, b"%d\n" % self.take())
                time.sleep(600)
            finally:
                os._exit(0)
        keep(self)
        os.close(theirs)
        with os.fdopen(ours, "rb") as f:
            self.size = int(f.readline() or 0)

    @staticmethod
    def take():
        held = []
        for size in (1 << 20, 1 << 16, 1 << 12):
            try:
                while len(held) < 900:
                    held.append(os.pipe())
                    fcntl.fcntl(held[-1][0], fcntl.F_SETPIPE_SZ, size)
            except OSError:
                pass
        return fcntl.fcntl(os.pipe()[0], fcntl.F_GETPIPE_SZ)

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def unacknowledged(s):
    """Bytes that were sent and that the other end's kernel has not acknowledged yet."""
    return struct.unpack("i", fcntl.ioctl(s, termios.TIOCOUTQ, bytes(4)))[0]


def block(size, seed=7):
    """Bytes in which no piece looks like another."""
    return b"".join((i * 2654435761 + seed).to_bytes(8, "little") for i in range(size // 8 + 1))[:size]


def fill(s, limit=64 << 20):
    """Sends until nothing moves any more; returns how much went in."""
    s.setblocking(False)
    data, sent, still = block(1 << 16), 0, time.monotonic()
    while time.monotonic() - still < 0.25 and sent < limit:
        try:
            sent += s.send(data[sent % len(data):])
            still = time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)
    s.settimeout(30 * SLOW)
    return sent


def check_block(data, what):
    whole = block(1 << 16)
    check(data == (whole * (len(data) // len(whole) + 1))[:len(data)], f"{what}: bytes differ")


def stalled(engine, rcvbuf=4096):
    """A relay whose target reads nothing while the client has filled everything."""
    target = Listener(rcvbuf=rcvbuf)
    relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine)
    client = relay.connect()
    server = target.accept()
    return relay, client, server, fill(client)


def test_T1_T2_T3_full_pipe_is_drained_whole():
    for engine in ENGINES:
        relay, client, server, sent = stalled(engine)
        for _ in range(3):
            # In steps smaller than a pipe: each must wake the writer again.
            part = receive(server, sent // 2)
            check_block(part, engine)
            rest = receive(server, sent - len(part))
            check(part + rest == (block(1 << 16) * (sent // (1 << 16) + 1))[:sent], f"{engine}: order")
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
        check_block(got, engine)
        server.sendall(b"still open")
        server.close()
        equal(receive_all(client), b"still open", f"{engine}: the other direction")
        client.close()
        relay.stop()


def test_T4_hang_up_of_a_unix_peer_discards_nothing():
    for engine in ENGINES:
        name = path("t4-" + engine)
        target = Listener("unix:" + name)
        relay = Relay("unix:" + name + "-in", target.where, engine=engine)
        client = connect("unix:" + name + "-in")
        server = target.accept()
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
    target = Listener()
    relay = Relay("tcp:127.0.0.1:0", target.where, half_close_timeout="500ms")
    client = relay.connect()
    server = target.accept()
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
    target = Listener("unix:" + path("deaf"))
    relay = Relay("tcp:127.0.0.1:0", target.where, half_close_timeout="500ms")
    client = relay.connect()
    server = target.accept()
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
    target = Listener()
    relay = Relay("tcp:127.0.0.1:0", target.where)
    client = relay.connect()
    server = target.accept()
    client.shutdown(socket.SHUT_WR)
    equal(server.recv(1), b"", "end of stream")
    relay.quiet(what=": half-closed")
    server.close()
    client.close()
    relay.stop()


def test_T6_no_busy_loop_unix_hang_up():
    for engine in ENGINES:
        target = Listener(rcvbuf=4096)
        where = "unix:" + path("t6-" + engine)
        relay = Relay(where, target.where, engine=engine)
        client = connect(where)
        server = target.accept()
        fill(client)
        client.close()  # EPOLLHUP for good while the target takes nothing
        relay.quiet(what=f": {engine}, unix HUP")
        server.close()
        relay.stop()


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
            check(best < 0.035, f"{engine}: {size} bytes there and back: {1000 * best:.0f} ms at best")
        client.close()
        relay.stop()


def test_T7_small_writes_are_not_gathered():
    """Nagle on the relay's sockets would hold the second write until the first's delayed ACK."""
    for engine in ENGINES:
        target = Listener()
        relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine)
        client = relay.connect()
        server = target.accept()
        for a, b, way in ((client, server, "up"), (server, client, "down")):
            took = []
            for _ in range(60):
                a.sendall(b"1")
                receive(b, 1)
                began = time.monotonic()
                a.sendall(b"2")
                receive(b, 1)
                took.append(time.monotonic() - began)
            middle = statistics.median(took)
            check(middle < 0.03, f"{engine} {way}: the second write waits {1000 * middle:.0f} ms")
        client.close()
        server.close()
        relay.stop()


def byte_exact(engine):
    server = Server()
    relay = Relay("tcp:127.0.0.1:0", server.where, engine=engine)
    for chunk, size in ((1, "20k"), (100, "1M"), (1448, "4M"), (0, "16M")):
        load(relay.where, up=size, down=size, chunk=chunk, server_chunk=chunk)
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
    if not FAULT:
        raise Skip("no libseccomp: no faults")
    server = Server()
    relay = Relay("tcp:127.0.0.1:0", server.where, engine="splice", faults=["fcntl@1=1031:EPERM"])
    for chunk, size in ((1, "20k"), (100, "1M"), (1448, "4M"), (0, "8M")):
        load(relay.where, up=size, down=size, chunk=chunk, server_chunk=chunk)
    relay.stop()
    server.finish()


def test_T9_a_splice_request_is_bounded():
    if not FAULT:
        raise Skip("no libseccomp: no faults")
    server = Server()
    stats = path("stats")
    relay = Relay("tcp:127.0.0.1:0", server.where, engine="splice", faults=["splice:none"],
                  stats=stats)
    load(relay.where, up="4M", down="4M")
    relay.stop()
    eventually(lambda: os.path.exists(stats) and os.path.getsize(stats), "statistics")
    with open(stats, encoding="ascii") as f:
        _, calls, _, largest = f.read().split()
    check(int(calls) > 0, "splice was called")
    check(int(largest) <= 1 << 30, f"the largest request had {largest} bytes")
    server.finish()


def test_T10_refused_pipes_mean_copy_and_one_line():
    if not FAULT:
        raise Skip("no libseccomp: no faults")
    for fault in ("pipe2:EMFILE", "pipe2:ENFILE", "splice:EPERM", "splice:ENOSYS",
                  "fcntl@1=1031:EPERM"):
        server = Server()
        relay = Relay("tcp:127.0.0.1:0", server.where, faults=[fault])
        before = len(relay.err)
        load(relay.where, connections=50, concurrent=10, up="256k", down="256k")
        load(relay.where, connections=1, up="8M", down="8M")
        lines = [line for line in relay.err[before:] if " bytes_in=" not in line]
        check(len(lines) <= 2, f"{fault}: {len(lines)} lines of log: {lines[:5]}")
        check("fcntl" in fault or lines, f"{fault}: what is refused is told")
        relay.stop()
        server.finish()


def test_T10_tiny_pipes():
    """Past pipe-user-pages-soft a user's pipes have two slots: another process of the same user
    has used all pages up."""
    if os.geteuid():
        raise Skip("only root can become a user whose pipes are used up")
    uid = 61000 + os.getpid() % 4000
    size = Hog(uid).size
    if not 0 < size <= 8192:
        raise Skip(f"this user gets pipes of {size} bytes all the same")
    # A copy, for the build may lie where that user can't go.
    binary = path("culvert")
    shutil.copy(CULVERT, binary)
    os.chmod(binary, 0o755)
    for engine in ("splice", "auto"):
        server = Server()
        relay = Relay(uid=uid, command=[binary, "relay", "tcp:127.0.0.1:0", server.where],
                      engine=engine)
        for chunk, size in ((1, "20k"), (100, "1M"), (1448, "4M"), (0, "16M")):
            load(relay.where, up=size, down=size, chunk=chunk, server_chunk=chunk)
        load(relay.where, connections=50, concurrent=50, up="256k", down="256k")
        check(len(relay.err) <= 5, f"{engine}: {len(relay.err)} lines of log: {relay.err}")
        relay.stop()
        server.finish()


def test_T11_only_empty_pipes_come_back():
    """Connections die with bytes in their pipes; those after them must not see any."""
    server = Server()
    for engine in ("splice", "auto"):
        target = Listener(rcvbuf=4096)
        relay = Relay("tcp:127.0.0.1:0", target.where, server.where, engine=engine)
        for turn in range(12):
            # Round robin: one connection in two goes to the target that doesn't read.
            a, b = relay.connect(), relay.connect()
            stuck = target.accept()
            for c in (a, b):
                c.setblocking(False)
                try:
                    while c.send(b"\xee" * 65536):
                        pass
                except OSError:
                    pass
            reset(stuck) if turn % 2 else reset(a)
            for c in (a, b, stuck):
                c.close()
        relay.idle_again()
        target.close()
        load(relay.where, connections=100, concurrent=20, up="300k", down="300k")
        relay.stop()
    server.finish(tolerate=True)


def test_T12_an_idle_connection_holds_no_pipe_and_no_buffer():
    for engine in ENGINES:
        target = Listener(handler=echo)
        relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine)
        data = block(400000)
        held = []

        def bulk(s):
            sender = threading.Thread(target=s.sendall, args=(data,))
            sender.start()
            check(receive(s, len(data)) == data, f"{engine}: echo")
            sender.join()

        for _ in range(20):
            held.append(relay.connect())
            bulk(held[-1])
        pipes, memory = relay.pipes(), relay.memory()
        for _ in range(200):
            held.append(relay.connect())
            bulk(held[-1])
        check(relay.pipes() <= max(pipes, 16),
              f"{engine}: {pipes} pipe descriptors with 20 idle, {relay.pipes()} with 220")
        # The pages of a sanitizer's shadow are not the relay's.
        grown = (relay.memory() - memory) / 200
        check(grown < 8192 or SLOW > 1, f"{engine}: {grown:.0f} bytes an idle connection")
        for s in held:
            s.close()
        relay.stop()


def test_T13_everything_is_non_blocking():
    for engine in ENGINES:
        relay, client, server, _ = stalled(engine)
        seen = {"socket": 0, "pipe": 0}
        for fd, link in relay.links():
            kind = link.split(":")[0]
            if fd <= 2 or kind not in seen:
                continue
            with open(f"/proc/{relay.pid}/fdinfo/{fd}", encoding="ascii") as f:
                flags = int(dict(line.split(":") for line in f if ":" in line)["flags"], 8)
            check(flags & os.O_NONBLOCK, f"{engine}: descriptor {fd} ({link}) would block")
            seen[kind] += 1
        check(seen["socket"] >= 3, f"listener and both sides seen: {seen}")
        check(engine != "splice" or seen["pipe"] >= 2, f"a pipe in use seen: {seen}")
        client.close()
        server.close()
        relay.stop()


def test_T14_fallback_in_mid_connection_loses_nothing():
    """splice fails from its n-th call on: at odd and even n, into and out of the pipe."""
    if not FAULT:
        raise Skip("no libseccomp: no faults")
    for error in ("EINVAL", "ENOSYS", "EPERM"):
        for nth in (1, 2, 3, 4, 7, 20, 33):
            server = Server()
            relay = Relay("tcp:127.0.0.1:0", server.where, engine="splice",
                          faults=[f"splice:{error}:{nth}"])
            load(relay.where, connections=3, up="2M", down="2M", rcvbuf=16384)
            relay.stop()
            server.finish()


def test_T15_bulk_is_spliced():
    for engine in ("splice", "auto"):
        server = Server()
        relay = Relay("tcp:127.0.0.1:0", server.where, engine=engine)
        load(relay.where, up="64M", down="64M")
        relay.stop()
        got = relay.totals()
        check(got["spliced"] > 64 << 20, f"{engine}: of 128 MiB only this was spliced: {got}")
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
    name, control = path("conf"), path("control")
    with open(name, "w", encoding="ascii") as f:
        f.write(f'relay:\n  - {{ name: web, listen: "tcp:127.0.0.1:0", to: ["{target.where}"], '
                f'when: always }}\ncontrol: {{ socket: {control} }}\n')
    relay = Relay(command=[CULVERT, "run", "--config", name])
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
        code, text = run(CULVERT, "status", "--json", "--socket", control)
        equal(code, 0, f"status: {text}")
        got = json.loads(text)["relay"][0]
        equal((got["bytes_in"], got["bytes_out"], got["active"]), (want * len(data), want * 2, 1),
              "counters of the open connection")
    client.close()
    server.close()
    relay.stop()


def test_T19_auto_chooses_well():
    """Which engine moved what, by the counters. How fast that is, the benchmark tells."""
    first = 16384  # what is copied before bulk is known for bulk: COPY_BYTES of move.c
    target = Listener()
    name, control = path("conf"), path("control")
    with open(name, "w", encoding="ascii") as f:
        f.write(f'relay:\n  - {{ name: web, listen: "tcp:127.0.0.1:0", to: ["{target.where}"], '
                f'engine: auto, when: always }}\ncontrol: {{ socket: {control} }}\n')
    relay = Relay(command=[CULVERT, "run", "--config", name])
    client = relay.connect()
    # All of a write must find room in the queues while the relay rests.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    server = target.accept()
    total = [0, 0]

    def moved(size, times, at_once):
        """Bytes (copied, spliced) for this many writes, each of which waits for the one before."""
        for _ in range(times):
            if at_once:  # the relay finds all of a write, however busy the machine is
                os.kill(relay.p.pid, signal.SIGSTOP)
            try:
                client.sendall(bytes(size))
            finally:
                if at_once:
                    os.kill(relay.p.pid, signal.SIGCONT)
            equal(len(receive(server, size)), size, f"a write of {size} bytes")
        now = [0, 0]

        def settled():
            _, text = run(CULVERT, "status", "--json", "--socket", control)
            route = json.loads(text)["relay"][0]
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
            os.kill(relay.p.pid, signal.SIGSTOP)
            try:
                speaks = pair[0] if pair else relay.connect()
                speaks.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                speaks.sendall(bulk)
                eventually(lambda s=speaks: unacknowledged(s) <= len(bulk) - first,
                           f"{side}: bulk in the relay's queue")
            finally:
                os.kill(relay.p.pid, signal.SIGCONT)
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


def test_T20_no_stall_at_tiny_buffers():
    """Small, but not so small that the kernel itself drops segments and waits for its timer."""
    for engine in ENGINES:
        server = Server("tcp:127.0.0.1:0", "--rcvbuf", 8192, "--sndbuf", 4096)
        relay = Relay("tcp:127.0.0.1:0", server.where, engine=engine)
        for _ in range(4):
            load(relay.where, up="256k", down="256k", rcvbuf=8192, sndbuf=4096)
        relay.stop()
        server.finish()


def test_T21_urgent_byte():
    for engine in ENGINES:
        target = Listener()
        relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine)
        client = relay.connect()
        server = target.accept()
        before, after = block(200000, 1), block(200000, 2)
        sender = threading.Thread(target=lambda c=client, b=before, a=after: (
            c.sendall(b), c.send(b"!", socket.MSG_OOB), c.sendall(a)))
        sender.start()
        got = receive(server, 400000)
        sender.join()
        # The urgent byte itself may arrive in line or be left out: nothing else may change.
        if got[200000:200001] == b"!" and got[200001:200101] == after[:100]:
            got += receive(server, 1)
            got = got[:200000] + got[200001:]
        check(got == before + after, f"{engine}: bytes differ")
        client.send(b"!", socket.MSG_OOB)
        relay.quiet(what=f": {engine}, an urgent byte waits")
        client.sendall(b"end")
        client.shutdown(socket.SHUT_WR)
        check(receive_all(server)[-3:] == b"end", f"{engine}: after the urgent byte")
        server.close()
        client.close()
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


def test_T23_bulk_does_not_starve_others():
    """One loop has a flow whose source never dries: small messages must still get through."""
    for engine in ENGINES:
        target = Listener(handler=echo)
        sink = Process([ENDS, "sink", "tcp:127.0.0.1:0"])
        eventually(lambda: sink.out, "sink listens")
        relay = Relay("tcp:127.0.0.1:0", target.where, sink.out[0].split()[1], engine=engine)
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


def test_T25_out_of_descriptors_neither_spins_nor_sticks():
    target = Listener(handler=echo)
    relay = Relay("tcp:127.0.0.1:0", target.where, limit=64)
    held = [relay.connect() for _ in range(150)]
    answered = 0
    for s in held[:5]:
        s.sendall(b"x")
        answered += receive(s, 1) == b"x"
    check(answered > 0, "those that fit are served")
    relay.quiet(what=": out of descriptors", most=25)
    check(len(relay.err) < 40, f"{len(relay.err)} lines of log")
    for s in held:
        s.close()

    def works():
        try:
            s = relay.connect()
            s.sendall(b"again")
            return receive(s, 5) == b"again"
        except OSError:
            return False

    eventually(works, "it serves again when descriptors are free", 20)
    check(relay.p.poll() is None, "still runs")
    for s in held:
        s.close()


def test_T25_faults_of_accept_and_connect_never_spin():
    if not FAULT:
        raise Skip("no libseccomp: no faults")
    for fault in ("accept4:EMFILE", "accept4:ENFILE", "accept4:ENOBUFS", "accept4:ENOMEM"):
        target = Listener(handler=echo)
        relay = Relay("tcp:127.0.0.1:0", target.where, faults=[fault])
        s = relay.connect()
        relay.quiet(what=f": {fault}", most=25)
        check(len(relay.err) < 40, f"{fault}: {len(relay.err)} lines of log")
        s.close()
        relay.stop()
    target = Listener(handler=echo)
    relay = Relay("tcp:127.0.0.1:0", target.where, faults=["connect:EADDRNOTAVAIL"])
    for _ in range(20):
        try_connection(relay.where)
    relay.quiet(what=": no local ports", most=25)
    relay.stop()


def test_T25_accept_recovers():
    if not FAULT:
        raise Skip("no libseccomp: no faults")
    for fault in ("accept4:EMFILE:1:3", "accept4:ECONNABORTED:1:3", "accept4:EINTR:1:3"):
        target = Listener(handler=echo)
        relay = Relay("tcp:127.0.0.1:0", target.where, faults=[fault])
        for _ in range(3):
            s = relay.connect()
            s.sendall(b"hello")
            equal(receive(s, 5), b"hello", f"{fault}: served in the end")
            s.close()
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
    sink = Process([ENDS, "sink", "tcp:127.0.0.1:0"])
    eventually(lambda: sink.out, "sink listens")
    relay = Relay("tcp:127.0.0.1:0", sink.out[0].split()[1])
    bulk = Process([ENDS, "bulk", relay.where, "1", str(size)])
    equal(bulk.wait(50), 0, f"bulk: {bulk.err}")
    relay.stop()
    equal(relay.totals()["bytes_in"], size, f"bytes counted: {relay.totals()}")


main()
