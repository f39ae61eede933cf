"""What is for the forwarder itself stays with its kernel, while the rest crosses."""
import socket

from harness import Machine, expect, forwarder, main, run, say, settings, wait_for


def pings(host, address, **kw):
    return host.run("ping", "-n", "-q", "-c", 5, "-i", 0.05, "-W", 10, address, **kw).returncode == 0


def kept():
    """addresses on a port answer: ping, ARP, neighbour discovery, TCP; the hosts reach each other"""
    m = Machine(ipv6=True, addresses=True)
    run("sysctl", "-qw", "net.ipv6.conf.p0.disable_ipv6=0", "net.ipv6.conf.p0.accept_dad=0")
    run("ip", "addr", "add", "10.77.0.254/24", "dev", "p0")
    run("ip", "addr", "add", "fd77::fe/64", "dev", "p0", "nodad")
    m.before["p0"] = settings("p0")
    f = forwarder(m.ports)
    m.reachable()
    for address in ("10.77.0.254", "fd77::fe", "10.77.0.2", "fd77::2"):
        pings(m.a, address)
    listener = socket.create_server(("10.77.0.254", 0))
    client = m.a.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(30)
    listener.settimeout(30)
    client.connect(listener.getsockname())
    server, _ = listener.accept()
    server.settimeout(30)
    client.sendall(b"x" * 100000 + b".")
    client.shutdown(socket.SHUT_WR)
    got = b""
    while chunk := server.recv(65536):
        got += chunk
    expect(len(got) == 100001, f"the forwarder's own kernel got {len(got)} bytes of 100001")
    for s in (server, client, listener):
        s.close()
    pings(m.b, "10.77.0.1")
    f.end()
    m.unchanged()


def later():
    """an address added while it runs is kept from then on"""
    m = Machine(addresses=True)
    f = forwarder(m.ports)
    m.reachable()
    run("ip", "addr", "add", "10.77.0.253/24", "dev", "p0")
    wait_for("the new address answers", lambda: m.a.run(
        "ping", "-n", "-c1", "-W1", "10.77.0.253", check=False).returncode == 0)
    pings(m.a, "10.77.0.2")
    f.end()


def above():
    """an address on a device above a port: one warning with what helps"""
    m = Machine()
    if run("ip", "link", "add", "above", "link", "p0", "type", "macvlan", check=False).returncode:
        say("no macvlan devices here")
        return
    run("ip", "addr", "add", "10.77.0.252/24", "dev", "above")
    f = forwarder(m.ports)
    said = [x for x in f.log().splitlines() if "can't be reached" in x]
    expect(len(said) == 1 and "10.77.0.252 is on above (macvlan)" in said[0] and
           "move the address to p0" in said[0], f"the log says:\n{f.log()}")
    f.end()
    run("ip", "link", "del", "above")


main(kept, later, above)
