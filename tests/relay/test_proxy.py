"""The proxy protocol, versions 1 and 2, sent and accepted, right, wrong and in pieces."""
import os
import socket
import struct
import time

from harness import (Listener, Relay, Skip, check, connect, ended, equal, eventually, main, path,
                     receive, receive_all)
from setups import joined

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(src, dst, sport, dport, command=1, tail=b""):
    """A version 2 header as the specification lays it out."""
    v6 = ":" in src
    pack = (lambda a: socket.inet_pton(socket.AF_INET6 if v6 else socket.AF_INET, a))
    body = pack(src) + pack(dst) + struct.pack("!HH", sport, dport) + tail
    return SIGNATURE + bytes([0x20 | command, 0x21 if v6 else 0x11]) + struct.pack("!H", len(body)) + body


def received_v2(s):
    head = receive(s, 16)
    equal(head[:12], SIGNATURE, "signature")
    size = struct.unpack("!H", head[14:])[0]
    return head[12], head[13], receive(s, size)


def accepting(target, **more):
    return Relay("tcp:127.0.0.1:0", target.where, proxy_accept="yes", proxy_trust="127.0.0.0/8",
                 **more)


def delivered(relay, target, header):
    """All that the target gets of a connection with this header and a payload behind it."""
    client = relay.connect()
    client.sendall(header + b"payload")
    client.shutdown(socket.SHUT_WR)
    server = target.accept()
    got = receive_all(server)
    server.close()
    client.close()
    return got


def test_send_v1():
    relay, client, server = joined(proxy_send="v1")
    me = client.getsockname()
    want = f"PROXY TCP4 127.0.0.1 127.0.0.1 {me[1]} {relay.port}\r\n".encode()
    equal(receive(server, len(want)), want, "header")
    client.sendall(b"payload")
    equal(receive(server, 7), b"payload", "payload")
    client.close()
    server.close()
    relay.stop()


def test_send_v2():
    relay, client, server = joined(proxy_send="v2")
    command, family, body = received_v2(server)
    equal((command, family), (0x21, 0x11), "command and family")
    equal(body[:12], v2("127.0.0.1", "127.0.0.1", client.getsockname()[1], relay.port)[16:28],
          "addresses")
    client.close()
    server.close()
    relay.stop()


def test_send_for_a_unix_client():
    """No addresses: UNKNOWN and LOCAL or UNSPEC, never made-up ones."""
    for version in ("v1", "v2"):
        target = Listener()
        where = "unix:" + path("in-" + version)
        relay = Relay(where, target.where, proxy_send=version)
        client = connect(where)
        client.sendall(b"payload")
        client.shutdown(socket.SHUT_WR)
        server = target.accept()
        if version == "v1":
            check(receive_all(server).startswith(b"PROXY UNKNOWN"), "unknown")
        else:
            command, family, _ = received_v2(server)
            check(family in (0, 0x31) or command == 0x20, f"{command:x} {family:x}")
            equal(receive_all(server), b"payload", "payload")
        client.close()
        server.close()
        relay.stop()


def test_accept_both_versions():
    target = Listener()
    relay = accepting(target, proxy_send="v1")
    cases = (
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n", b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 1000 2000\r\n",
         b"PROXY TCP6 2001:db8::1 2001:db8::2 1000 2000\r\n"),
        (v2("192.0.2.1", "192.0.2.2", 1000, 2000), b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n"),
        (v2("2001:db8::1", "2001:db8::2", 1, 65535), b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"),
        (v2("192.0.2.1", "192.0.2.2", 1000, 2000, tail=b"\x04\0\x64" + bytes(100)),
         b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n"),
    )
    for header, want in cases:
        equal(delivered(relay, target, header), want + b"payload", f"for {header!r}")
    relay.stop()


def test_accept_local_and_unknown():
    target = Listener()
    relay = accepting(target)
    for header in (b"PROXY UNKNOWN\r\n", v2("192.0.2.1", "192.0.2.2", 1, 2, command=0),
                   SIGNATURE + b"\x20\x00\0\0"):
        equal(delivered(relay, target, header), b"payload", f"for {header!r}")
    relay.stop()


def test_accept_in_pieces():
    target = Listener()
    relay = accepting(target)
    for header in (b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n",
                   v2("192.0.2.1", "192.0.2.2", 1000, 2000)):
        client = relay.connect()
        for i in range(len(header)):
            client.sendall(header[i:i + 1])
            time.sleep(0.002)
        client.sendall(b"payload")
        client.shutdown(socket.SHUT_WR)
        server = target.accept()
        equal(receive_all(server), b"payload", "payload alone, whole")
        server.close()
        client.close()
    relay.stop()


def test_wrong_headers_are_refused():
    target = Listener()
    relay = accepting(target)
    for header in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PROXY TCP4 192.0.2.1\r\n",
                   b"PROXY TCP4 a b c d\r\n", b"PROXY " + b"x" * 200 + b"\r\n",
                   b"PROXY TCP4 192.0.2.1 192.0.2.2 99999 1\r\n",
                   SIGNATURE + b"\x31\x11\0\x0c" + bytes(12), SIGNATURE + b"\x21\x11\0\x02ab"):
        client = relay.connect()
        client.sendall(header)
        ended(client)
        client.close()
    # None of it reached the target.
    target.s.settimeout(0.2)
    try:
        c = target.accept()
        data = receive_all(c)
        check(not data, f"the target got {data[:80]!r}")
    except (TimeoutError, ConnectionResetError):
        pass
    relay.stop()


def test_a_header_is_not_waited_for_without_end():
    target = Listener()
    relay = accepting(target, connect_timeout="1s")
    client = relay.connect()
    client.sendall(b"PROXY ")
    relay.quiet(what=": half a header")
    ended(client)
    relay.idle_again(20)
    relay.stop()


def test_untrusted_networks_are_refused():
    target = Listener()
    relay = Relay("tcp:127.0.0.1:0", target.where, proxy_accept="yes", proxy_trust="192.0.2.0/24")
    for _ in range(3):
        try:
            client = relay.connect()
            client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\npayload")
            client.shutdown(socket.SHUT_WR)
            ended(client)
        except OSError:
            pass
    target.s.settimeout(0.3)
    try:
        c = target.accept()
        check(b"192.0.2.1 " not in receive_all(c), "a header from an untrusted network passed on")
    except (TimeoutError, ConnectionResetError):
        pass
    relay.stop()


def test_allow_and_deny_are_about_whom_the_header_names():
    target = Listener()
    for settings in ({"allow": "192.0.2.0/24,2001:db8::/32", "deny": "192.0.2.9"},
                     {"deny": "192.0.2.9,198.51.100.0/24,2001:db9::/32,127.0.0.0/8"}):
        relay = accepting(target, access_log="stderr", **settings)
        for header, admitted in (
                (b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n", True),
                (b"PROXY TCP4 192.0.2.9 192.0.2.2 1000 2000\r\n", False),
                (b"PROXY TCP4 198.51.100.7 192.0.2.2 1000 2000\r\n", False),
                (v2("2001:db8::1", "2001:db8::2", 1, 2), True),
                (v2("2001:db9::1", "2001:db8::2", 1, 2), False),
                (b"PROXY UNKNOWN\r\n", True)):  # the trusted peer itself, which asks how we are
            if admitted:
                equal(delivered(relay, target, header), b"payload", f"{settings}, {header}")
                continue
            client = relay.connect()
            client.sendall(header)
            equal(ended(client), "reset", f"{settings}, {header}")
            client.close()
        eventually(lambda r=relay: r.logged("client=198.51.100.7:1000 target=none .* end=refused"),
                   lambda r=relay: f"{r.err}")
        relay.stop()
        equal(relay.totals()["refused"], 3, "refusals counted")
    target.close()


def test_source_address():
    relay, client, server = joined(source="127.0.0.9")
    equal(server.getpeername()[0], "127.0.0.9", "where the target sees it come from")
    client.close()
    server.close()
    relay.stop()


def test_source_port_range():
    """Inside the system's range of local ports, and outside of it."""
    for low in (41000, 23000):
        target = Listener()
        relay = Relay("tcp:127.0.0.1:0", target.where, source=f"127.0.0.9:{low}-{low + 49}")
        for _ in range(10):
            client = relay.connect()
            server = target.accept()
            host, port = server.getpeername()
            check(host == "127.0.0.9" and low <= port <= low + 49, f"came from {host}:{port}")
            client.close()
            server.close()
        relay.stop()


def test_transparent_source():
    if os.geteuid():
        raise Skip("IP_TRANSPARENT needs CAP_NET_ADMIN")
    target = Listener()
    relay = Relay("tcp:127.0.0.1:0", target.where, transparent="yes")
    client = connect(relay.where, source="127.0.0.77")
    server = target.accept()
    equal(server.getpeername()[0], "127.0.0.77", "where the target sees it come from")
    client.sendall(b"x")
    equal(receive(server, 1), b"x", "payload")
    client.close()
    server.close()
    relay.stop()


main()
