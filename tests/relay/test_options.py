"""Socket options per route, read back from the kernel on the relay's own descriptors."""
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import time

from harness import (CULVERT, Listener, Relay, Skip, check, echo, ended, equal, eventually, keep,
                     main, path, receive, receive_all, reset, run, wait_readable)
from setups import held_up

PIDFD_OPEN, PIDFD_GETFD = 434, 438
TCP_CONGESTION, TCP_USER_TIMEOUT, TCP_FASTOPEN = 13, 18, 23
SO_MARK = 36
IPPROTO_MPTCP = 262
libc = ctypes.CDLL(None, use_errno=True)


def borrowed(relay, kind=socket.SOCK_STREAM):
    """Duplicates of the relay's sockets: (all of them) by what they are."""
    pidfd = libc.syscall(PIDFD_OPEN, relay.pid, 0)
    if pidfd < 0:
        raise Skip("pidfd_open is not to be had")
    got = {"listener": [], "client": [], "target": []}
    for fd, link in relay.links():
        if not link.startswith("socket:") or fd <= 2:
            continue
        mine = libc.syscall(PIDFD_GETFD, pidfd, fd, 0)
        if mine < 0:
            raise Skip("pidfd_getfd is not permitted")
        s = socket.socket(fileno=mine)
        if s.family not in (socket.AF_INET, socket.AF_INET6) or s.type != kind:
            s.close()
        elif s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            got["listener"].append(s)
        elif s.getsockname()[1] == relay.port:
            got["client"].append(s)
        else:
            got["target"].append(s)
    os.close(pidfd)
    return got


def with_options(**settings):
    """A relay with one connection through it, and its sockets."""
    target = Listener(handler=echo)
    relay = Relay("tcp:127.0.0.1:0", target.where, **settings)
    client = relay.connect()
    client.sendall(b"x")
    equal(receive(client, 1), b"x", f"{settings}: echo")
    sockets = borrowed(relay)
    equal((len(sockets["client"]), len(sockets["target"])), (1, 1), "sockets of a connection")
    return relay, client, sockets


def done(relay, client, sockets):
    for group in sockets.values():
        for s in group:
            s.close()
    client.close()
    relay.stop()


def both(sockets):
    return [("client", sockets["client"][0]), ("target", sockets["target"][0])]


def test_nodelay():
    for value, want in (("yes", 1), ("no", 0)):
        relay, client, sockets = with_options(nodelay=value)
        for side, s in both(sockets):
            equal(bool(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)), bool(want),
                  f"nodelay={value}: {side}")
        done(relay, client, sockets)


def test_nodelay_is_the_default():
    relay, client, sockets = with_options()
    for side, s in both(sockets):
        check(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), side)
    done(relay, client, sockets)


def test_keepalive():
    relay, client, sockets = with_options(keepalive="77s")
    for side, s in both(sockets):
        check(s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), f"{side}: keepalive")
        equal(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), 77, f"{side}: seconds")
    done(relay, client, sockets)
    relay, client, sockets = with_options(keepalive="no")
    for side, s in both(sockets):
        check(not s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), f"{side}: no keepalive")
    done(relay, client, sockets)


def test_user_timeout():
    relay, client, sockets = with_options(user_timeout="12s")
    for side, s in both(sockets):
        equal(s.getsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT), 12000, f"{side}: ms")
    done(relay, client, sockets)


def test_congestion():
    # reno is in every kernel and may be chosen by everyone.
    relay, client, sockets = with_options(congestion="reno")
    for side, s in both(sockets):
        name = s.getsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, 16).rstrip(b"\0")
        equal(name, b"reno", side)
    done(relay, client, sockets)


def test_mark():
    if os.geteuid():
        raise Skip("SO_MARK needs CAP_NET_ADMIN")
    relay, client, sockets = with_options(mark="0x2a")
    equal(sockets["target"][0].getsockopt(socket.SOL_SOCKET, SO_MARK), 42, "target's mark")
    done(relay, client, sockets)


def test_mark_of_datagrams():
    if os.geteuid():
        raise Skip("SO_MARK needs CAP_NET_ADMIN")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        target.bind(("127.0.0.1", 0))
        target.settimeout(20)
        relay = Relay("udp:127.0.0.1:0", f"udp:127.0.0.1:{target.getsockname()[1]}", mark=42,
                      workers=2)
        client.sendto(b"x", ("127.0.0.1", relay.port))
        equal(target.recv(1), b"x", "datagram")
        sockets = borrowed(relay, socket.SOCK_DGRAM)
        marks = {side: {s.getsockopt(socket.SOL_SOCKET, SO_MARK) for s in sockets[side]}
                 for side in ("client", "target")}
        equal(marks, {"client": {42}, "target": {42}}, "marks")
        for s in sockets["client"] + sockets["target"]:
            s.close()
    relay.stop(leak=False)


def test_interface():
    relay, client, sockets = with_options(interface="lo")
    name = sockets["target"][0].getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
    equal(name.rstrip(b"\0"), b"lo", "target's interface")
    done(relay, client, sockets)


def test_fast_open():
    relay, client, sockets = with_options(fast_open="yes")
    check(sockets["listener"][0].getsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN) > 0,
          "the listener's queue of fast opens")
    done(relay, client, sockets)


def turn_fast_open_on():
    try:
        # 1: client, 2: server
        with open("/proc/sys/net/ipv4/tcp_fastopen", "w", encoding="ascii") as f:
            f.write("3")
    except OSError as e:
        raise Skip(f"fast open can't be turned on: {e}") from None


def fast_target(handler):
    target = Listener(handler=handler)
    target.s.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 256)
    return target


def test_fast_open_and_who_speaks_first():
    """With the target's cookie the SYN takes the client's bytes along; it must not wait for them."""
    turn_fast_open_on()

    def greet(c):
        c.sendall(b"220 ready")
        c.settimeout(2)
        echo(c)

    for settings in ({}, {"proxy_send": "v1"}, {"mptcp": "yes"}):
        silent, speaking = fast_target(greet), fast_target(echo)
        if "proxy_send" not in settings:
            relay = Relay("tcp:127.0.0.1:0", silent.where, fast_open="yes", **settings)
            for turn in range(3):
                client = relay.connect()
                check(wait_readable(client, 5), f"{settings}, connection {turn + 1}: no greeting")
                equal(receive(client, 9), b"220 ready", "greeting")
                client.sendall(b"EHLO")
                equal(receive(client, 4), b"EHLO", "echo")
                client.close()
            relay.stop()
        relay = Relay("tcp:127.0.0.1:0", speaking.where, fast_open="yes", **settings)
        for turn in range(3):
            before = counted("TCPFastOpenActive")
            client = socket.socket()
            client.settimeout(20)
            # The client's own fast open: its bytes are there when the relay connects.
            header = "proxy_send" in settings
            client.sendto(b"GET", socket.MSG_FASTOPEN, ("127.0.0.1", relay.port))
            got = receive(client, 3)
            equal(got, b"PRO" if header else b"GET", f"{settings}: echo")
            client.close()
        check(counted("TCPFastOpenActive") >= before + 2, f"{settings}: both went with the SYN")
        relay.stop()


def test_fast_open_and_an_end_at_once():
    """A request and its FIN are there before the target has answered the SYN: shutdown(2) of a
    socket that still connects would undo the connecting."""
    turn_fast_open_on()
    target = socket.create_server(("127.0.0.1", 0), backlog=0)
    target.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
    target.settimeout(20)
    where = target.getsockname()
    relay = Relay("tcp:127.0.0.1:0", f"tcp:127.0.0.1:{where[1]}", fast_open="yes")
    for turn in range(3):  # the first brings the cookie
        # The queue has room for one: with it, the target does not hear the SYN at first.
        plug = socket.create_connection(where) if turn else None
        with held_up(relay):
            client = relay.connect()
            client.sendall(b"GET" * 1000)
            client.shutdown(socket.SHUT_WR)
        if plug:
            check(not wait_readable(client, 0.3), f"connection {turn + 1} ended while connecting")
            target.accept()[0].close()
            plug.close()
        server = target.accept()[0]
        server.settimeout(20)
        equal(len(receive_all(server)), 3000, f"connection {turn + 1}: bytes before the end")
        server.sendall(b"answer")
        server.close()
        equal(receive_all(client), b"answer", f"connection {turn + 1}: the target's answer")
        client.close()
    target.close()
    relay.stop()


def test_fast_open_and_a_dead_target():
    """The bytes went with the SYN, and no one took them: the other target gets them, and who does
    not answer is found out."""
    turn_fast_open_on()
    alive = fast_target(echo)
    with socket.socket() as dead:  # bound, and so refused, and nobody else's
        dead.bind(("127.0.0.1", 0))
        for settings in ({}, {"proxy_send": "v1"}):
            relay = Relay("tcp:127.0.0.1:0", alive.where, f"tcp:127.0.0.1:{dead.getsockname()[1]}",
                          fast_open="yes", health_failures=3, **settings)
            for turn in range(12):
                client = socket.socket()
                # More than is offered to the SYN.
                question = bytes(range(200)) * 100
                went = client.sendto(question, socket.MSG_FASTOPEN, ("127.0.0.1", relay.port))
                client.settimeout(20)
                client.sendall(question[went:])
                client.shutdown(socket.SHUT_WR)
                got = receive_all(client)
                if settings:
                    check(got.startswith(b"PROXY TCP4 127.0.0.1 "), f"{turn}: {got[:40]}")
                    got = got[got.index(b"\r\n") + 2:]
                check(got == question, f"{settings}, connection {turn + 1}: {len(got)} bytes")
                client.close()
            check(relay.logged("is down after 3 failures"), f"{settings}: {relay.err}")
            equal(len(relay.logged("is up again")), 0, "a SYN that was sent is no answer")
            relay.stop()


def test_fast_open_and_a_rate():
    """Bytes that go with the SYN are under the route's rate as others are."""
    turn_fast_open_on()
    n, size, rate = 24, 8000, 100000
    arrived = []

    def take(c):
        got = len(receive(c, 1 if began is None else size))
        arrived.append((time.monotonic(), got))  # the end has to wait in any case

    target = fast_target(take)
    relay = Relay("tcp:127.0.0.1:0", target.where, fast_open="yes", rate=rate)
    began = None
    for turn in range(2 + n):
        if turn == 2:  # relay and clients have their cookies
            began = time.monotonic()
        client = keep(socket.socket())
        client.settimeout(None)
        client.sendto(b"x" * (size if began else 1), socket.MSG_FASTOPEN, ("127.0.0.1", relay.port))
        client.shutdown(socket.SHUT_WR)
        if turn < 2:
            eventually(lambda want=turn + 1: len(arrived) == want, "a first connection")
    eventually(lambda: len(arrived) == n + 2, lambda: f"{len(arrived)} of {n} arrived")
    equal(sum(got for _, got in arrived), 2 + n * size, "bytes")
    seconds = max(when for when, _ in arrived) - began
    check(seconds > 0.7 * n * size / rate, f"{n * size} bytes in {seconds:.2f} s, {rate} a second")


def test_fast_open_and_an_answer_with_a_reset():
    """Who answered and reset the connection before the relay looked has had the request: it is not
    put to another target, and who answers is not down."""
    turn_fast_open_on()
    asked = []

    def handler(c):
        asked.append(c.recv(100))
        first = len(asked) == 1
        if first:  # the relay still connects the others
            os.kill(relay.pid, signal.SIGSTOP)
        c.sendall(b"answer")
        reset(c)
        if first:
            time.sleep(0.1)
            os.kill(relay.pid, signal.SIGCONT)

    targets = [fast_target(handler) for _ in range(2)]
    relay = Relay("tcp:127.0.0.1:0", *(t.where for t in targets), fast_open="yes",
                  health_failures=3)
    n = 64
    for count in (1, n):  # the first brings the cookie
        asked.clear()
        with held_up(relay):
            clients = [relay.connect() for _ in range(count)]
            for client in clients:
                client.sendall(b"GET")
        for client in clients:
            equal(receive(client, 6), b"answer", "answer")
            equal(ended(client), "reset", "end")
            client.close()
        equal(len(asked), count, "requests, each asked once")
    equal(relay.logged(" is down "), [], "log")
    relay.stop()
    equal(relay.totals()["retries"], 0, "retries")


def counted(name):
    """A number of the kernel's, of this namespace."""
    with open("/proc/net/netstat", encoding="ascii") as f:
        lines = [line.split() for line in f]
    for names, values in zip(lines[::2], lines[1::2]):
        if name in names:
            return int(values[names.index(name)])
    raise Skip(f"the kernel doesn't count {name}")


def test_multipath():
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError as e:
        raise Skip(f"MPTCP is not in this kernel: {e}") from None
    target = Listener(handler=echo)
    relay = Relay("tcp:127.0.0.1:0", target.where, mptcp="yes")
    # Plain TCP clients and targets still work.
    client = relay.connect()
    client.sendall(b"x")
    equal(receive(client, 1), b"x", "echo")
    client.close()
    # And a multipath client gets multipath.
    m = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    m.settimeout(20)
    m.connect(("127.0.0.1", relay.port))
    m.sendall(b"y")
    equal(receive(m, 1), b"y", "echo over MPTCP")
    fallen_back = True
    try:
        # struct mptcp_info: SOL_MPTCP 284, MPTCP_INFO 1; the call fails after a fallback.
        m.getsockopt(284, 1, 64)
        fallen_back = False
    except OSError:
        pass
    check(not fallen_back, "the client's connection fell back to TCP")
    m.close()
    relay.stop()


def test_options_survive_for_every_connection():
    target = Listener(handler=echo)
    relay = Relay("tcp:127.0.0.1:0", target.where, keepalive="99s", workers=2)
    held = []
    for _ in range(20):
        held.append(relay.connect())
        held[-1].sendall(b"x")
        equal(receive(held[-1], 1), b"x", "echo")
    sockets = borrowed(relay)
    equal((len(sockets["client"]), len(sockets["target"])), (20, 20), "sockets")
    for s in sockets["client"] + sockets["target"]:
        equal(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), 99, "seconds")
        s.close()
    for s in sockets["listener"]:
        s.close()
    for s in held:
        s.close()
    relay.stop()


def client_side(relay, client):
    """Options of the relay's socket to the client: nodelay, keepalive, urgent data in line, user
    timeout, congestion."""
    client.sendall(b"x")
    equal(receive(client, 1), b"x", "echo")
    sockets = borrowed(relay)
    ours = [s for s in sockets["client"] if s.getpeername() == client.getsockname()]
    equal(len(ours), 1, "the relay's socket to the client")
    got = [ours[0].getsockopt(level, option) for level, option in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY), (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        (socket.SOL_SOCKET, socket.SO_OOBINLINE), (socket.IPPROTO_TCP, TCP_USER_TIMEOUT))]
    got.append(ours[0].getsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, 16).rstrip(b"\0"))
    for group in sockets.values():
        for s in group:
            s.close()
    return got


def test_an_inherited_listener_gets_them():
    """systemd sets none of them on its own."""
    target = Listener(handler=echo)
    with socket.create_server(("127.0.0.1", 0)) as s:
        os.dup2(s.fileno(), 200)
    os.set_inheritable(200, True)
    relay = Relay("fd:200", target.where, fds=(200,), congestion="reno")
    os.close(200)
    client = relay.connect()
    equal(client_side(relay, client), [1, 1, 1, 0, b"reno"], "options")
    client.close()
    relay.stop()


def test_a_reload_changes_them():
    """The listener stays, and with it what the former route had set."""
    target, config, control = Listener(handler=echo), path("culvert.yaml"), path("control.sock")

    def write(**settings):
        with open(config, "w", encoding="utf-8") as f:
            f.write(json.dumps({"relay": [{"name": "web", "listen": "tcp:127.0.0.1:0",
                                           "to": [target.where], **settings}]}))

    write()
    relay = Relay(command=[CULVERT, "run", "--config", config, "--socket", control])
    plain = relay.connect()
    before = client_side(relay, plain)
    other = "reno" if before[4] != b"reno" else "cubic"
    for settings, want in (
            ({"nodelay": "no", "keepalive": "no", "user_timeout": "7s", "congestion": other},
             [0, 0, 1, 7000, other.encode()]), ({}, before)):
        write(**settings)
        code, said = run(CULVERT, "reload", "--socket", control)
        equal(code, 0, f"reload: {said}")
        client = relay.connect()
        equal(client_side(relay, client), want, f"after a reload with {settings}")
        client.close()
    write(mptcp="yes")
    code, said = run(CULVERT, "reload", "--socket", control)
    equal(code, 1, f"a listener can't become an MPTCP one: {said}")
    check("restart" in said, said)
    equal(client_side(relay, plain), before, "the first connection")
    plain.close()
    relay.stop()


def test_backlog():
    target = Listener(handler=echo)
    relay = Relay("tcp:127.0.0.1:0", target.where, backlog="37")
    text = subprocess.run(["ss", "-Hltn", f"sport = :{relay.port}"], capture_output=True, text=True,
                          check=False).stdout
    if not text:
        raise Skip("ss is not installed")
    equal(re.split(r"\s+", text.strip())[2], "37", "ss's Send-Q of the listener")
    relay.stop()


# A route's algorithm would go before the socket's.
main(cubic=False)
