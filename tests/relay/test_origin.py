"""Where connections to a target come from: the client's address, a mark's route, an interface.

The relay's machine is the test's own namespace; the clients' and the targets' are namespaces of
helper processes, joined to it by veths that go with them:

  clients 10.77.1.2 -- 10.77.1.1 wan [relay] lan   10.77.2.1 -- 10.77.2.2 }
                                             other 10.77.3.1 -- 10.77.3.2 } targets, 10.77.9.9
"""
import contextlib
import ctypes
import os
import re
import socket
import subprocess

from harness import (CLONE_NEWNET, HERE, Listener, Process, Relay, Skip, check, connect, echo, ended,
                     equal, eventually, keep, main, receive)

libc = ctypes.CDLL(None, use_errno=True)
TARGET = {4: "10.77.9.9", 6: "fd77:9::9"}
MANUAL = os.path.join(HERE, "..", "..", "deploy", "man", "culvert.yaml.5.scd")


def ip(*words, inside=None):
    argv = ["nsenter", "-t", str(inside.pid), "-n"] if inside else []
    argv += ["ip", *" ".join(words).split()]
    p = subprocess.run(argv, capture_output=True, text=True, check=False)
    equal(p.returncode, 0, f"{' '.join(argv)}: {p.stderr.strip()}")
    return p.stdout


class Routing:
    """A rule or a route of the relay's machine, until the test ends."""

    def __init__(self, family, words):
        self.words = f"-{family} {words}"
        ip(self.words)
        keep(self)

    def close(self):
        ip(self.words.replace(" add ", " delete "))


class Machine(Process):
    """A namespace: it lives as long as the process that was started in it."""

    def __init__(self):
        super().__init__(["unshare", "-n", "sh", "-c", "echo up; exec cat"])
        eventually(lambda: self.out or self.p.poll() is not None, "a namespace")
        if not self.out:
            raise Skip(f"no namespace to be had: {self.err}")
        ip("link set lo up", inside=self)

    @contextlib.contextmanager
    def here(self):
        """What is opened in it is opened there; this thread comes back."""
        with open("/proc/thread-self/ns/net", "rb") as home, \
                open(f"/proc/{self.pid}/ns/net", "rb") as there:
            equal(libc.setns(there.fileno(), CLONE_NEWNET), 0, "setns")
            try:
                yield
            finally:
                equal(libc.setns(home.fileno(), CLONE_NEWNET), 0, "setns back")


class Link:
    """A veth from here to another machine."""

    def __init__(self, name, machine, number):
        self.name = name
        ip(f"link add {name} type veth peer name {name} netns {machine.pid}")
        keep(self)
        for side, where in ((1, None), (2, machine)):
            ip(f"address add 10.77.{number}.{side}/24 dev {name}", inside=where)
            ip(f"-6 address add fd77:{number}::{side}/64 dev {name} nodad", inside=where)
            ip(f"link set {name} up", inside=where)

    def close(self):
        subprocess.run(["ip", "link", "delete", self.name], check=False, stderr=subprocess.DEVNULL)


def machines():
    if os.geteuid():
        raise Skip("namespaces and these options need root")
    clients, targets = Machine(), Machine()
    Link("wan", clients, 1)
    Link("lan", targets, 2)
    Link("other", targets, 3)
    for family, length in ((4, 32), (6, 128)):
        at = f"{TARGET[family]}/{length}"
        near = {4: "10.77.{}.{}", 6: "fd77:{}::{}"}[family].format
        ip(f"-{family} address add {at} dev lo", inside=targets)
        # By lan; by the other only for who asks for it.
        ip(f"-{family} route add {at} via {near(2, 2)} dev lan metric 10")
        ip(f"-{family} route add {at} via {near(3, 2)} dev other metric 20")
        ip(f"-{family} route add default via {near(1, 1)}", inside=clients)
        ip(f"-{family} route add default via {near(2, 1)}", inside=targets)
    return clients, targets


def listen(machine, family):
    host = TARGET[family] if family == 4 else f"[{TARGET[family]}]"
    with machine.here():
        return Listener(f"tcp:{host}:0", handler=echo_with_peer)


def echo_with_peer(c):
    """Says who has come, then echoes."""
    c.sendall(c.getpeername()[0].encode() + b"\n")
    echo(c)


def line(s):
    got = b""
    while not got.endswith(b"\n"):
        part = s.recv(1)
        check(part, f"the end after {got!r}")
        got += part
    return got[:-1].decode()


def seen_by_target(relay_at, machine=None):
    """The address that the target of a TCP route sees, after a transfer both ways."""
    with machine.here() if machine else contextlib.nullcontext():
        s = connect(relay_at)
    who = line(s)
    data = os.urandom(300000)
    for at in range(0, len(data), 30000):
        s.sendall(data[at:at + 30000])
        check(receive(s, 30000) == data[at:at + 30000], "the bytes come back as they were")
    s.close()
    return who


def seen_by_datagrams(relay_port, target, family=4):
    """Likewise of a UDP route to a socket that the target's machine opened."""
    s = keep(socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM))
    s.settimeout(1)
    target.settimeout(1)
    for _ in range(15):
        s.sendto(b"ping", ("127.0.0.1" if family == 4 else "::1", relay_port))
        try:
            data, peer = target.recvfrom(100)
            equal(data, b"ping", "the datagram")
            target.sendto(b"pong", peer)
            equal(s.recv(100), b"pong", "the answer")
            return peer[0]
        except TimeoutError:
            pass
    return None


def datagrams(machine, family=4):
    with machine.here():
        s = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    s.bind((TARGET[family], 0))
    return s, f"udp:{TARGET[family]}:{s.getsockname()[1]}"


def manuals_commands():
    """The commands that the manual gives the operator of a transparent route."""
    with open(MANUAL, encoding="ascii") as f:
        text = f.read()
    section = text[text.index("*transparent:*"):text.index("*nodelay:*")]
    found = re.findall(r"^\s*ip ((?:route|rule) add .*)$", section, re.M)
    equal(len(found), 2, "commands of the manual")
    return found


def test_transparent_shows_the_target_the_clients_address():
    clients, targets = machines()
    commands = manuals_commands()
    for family, listen_at, client in ((4, "10.77.1.1", "10.77.1.2"), (6, "[fd77:1::1]", "fd77:1::2")):
        target = listen(targets, family)
        relay = Relay(f"tcp:{listen_at}:0", target.where, transparent="yes", connect_timeout="1s",
                      retries=0)
        plain = Relay(f"tcp:{listen_at}:0", target.where)
        mine = {4: "10.77.2.1", 6: "fd77:2::1"}[family]
        equal(seen_by_target(plain.where, clients), mine, "without the option: the relay's address")
        with clients.here():
            s = connect(relay.where)
        ended(s)  # given up
        equal(target.accepted, 1, "without the manual's routing the answers go astray")
        for command in commands:
            Routing(family, re.sub(r"\bsport 80\b", f"sport {target.port}", command))
        equal(seen_by_target(relay.where, clients), client, "the client's address")
        # The routing takes only what the target sends: others pass through this machine as before.
        equal(seen_by_target(plain.where, clients), mine, "beside it, without the option")
        relay.stop()
        plain.stop()


def test_transparent_datagrams():
    clients, targets = machines()
    target, where = datagrams(targets)
    for command in manuals_commands():
        Routing(4, command.replace("ipproto tcp", "ipproto udp").replace(
            "sport 80", f"sport {target.getsockname()[1]}"))
    relay = Relay("udp:10.77.1.1:0", where, transparent="yes")
    with clients.here():
        s = keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    s.settimeout(5)
    target.settimeout(5)
    s.sendto(b"ping", ("10.77.1.1", relay.port))
    data, peer = target.recvfrom(100)
    equal((data, peer[0]), (b"ping", "10.77.1.2"), "the client's address")
    target.sendto(b"pong", peer)
    equal(s.recvfrom(100), (b"pong", ("10.77.1.1", relay.port)), "the answer")
    relay.stop(leak=False)


def test_mark_chooses_the_route():
    _, targets = machines()
    Routing(4, "rule add fwmark 0x2a lookup 200")
    Routing(4, "route add 10.77.9.9 via 10.77.3.2 dev other table 200")
    target = listen(targets, 4)
    datagram_target, where = datagrams(targets)
    for mark, want in ((None, "10.77.2.1"), ("0x2a", "10.77.3.1"), ("0x2b", "10.77.2.1")):
        settings = {"mark": mark} if mark else {}
        relay = Relay("tcp:127.0.0.1:0", target.where, **settings)
        equal(seen_by_target(relay.where), want, f"mark {mark}")
        relay.stop()
        relay = Relay("udp:127.0.0.1:0", where, **settings)
        equal(seen_by_datagrams(relay.port, datagram_target), want, f"mark {mark}, datagrams")
        relay.stop(leak=False)


def test_interface_is_the_way_out():
    _, targets = machines()
    target = listen(targets, 4)
    datagram_target, where = datagrams(targets)
    for interface, want in ((None, "10.77.2.1"), ("other", "10.77.3.1"), ("lan", "10.77.2.1")):
        settings = {"interface": interface} if interface else {}
        relay = Relay("tcp:127.0.0.1:0", target.where, **settings)
        equal(seen_by_target(relay.where), want, f"interface {interface}")
        relay.stop()
        relay = Relay("udp:127.0.0.1:0", where, **settings)
        equal(seen_by_datagrams(relay.port, datagram_target), want,
              f"interface {interface}, datagrams")
        relay.stop(leak=False)


main()
