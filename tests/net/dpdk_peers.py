"""Peers of memif and vhost-user ports that are not there yet, die, hang up and come back."""
import contextlib
import os
import signal
import socket
import struct
import subprocess
import time

import harness
from harness import Culvert, Machine, expect, main, run, say, veth, wait_for
from life import Pairs

ROUNDS = 100 if harness.LONG else 6

MEMIF = "dpdk:net_memif{},role={},socket=/run/memif{}.sock,socket-abstract={}"


def config(ports, patches):
    lines = ["workers: 1", "ports:"]
    lines += [f'  - {{ name: {name}, device: "{device}" }}' for name, device in ports.items()]
    lines += ["forward:", "  patch: [" + ", ".join(f"[{a}, {b}]" for a, b in patches) + "]"]
    return "\n".join(lines) + "\n"


def packet(device):
    return f"dpdk:net_af_packet_{device},iface={device}"


# From c to d through every kind in both roles: p2 one two one two one p3; from a to b through two.
ONE = config({"west": packet("p2"), "m1": MEMIF.format(1, "client", 1, "no"),
              "m2": MEMIF.format(2, "server", 2, "yes"),
              "v1": "dpdk:net_virtio_user1,path=/run/vhost1.sock",
              "v2": "dpdk:net_vhost2,iface=/run/vhost2.sock", "east": packet("p3")},
             (("west", "m1"), ("m2", "v1"), ("v2", "east")))
TWO = config({"wan": packet("p0"), "lan": packet("p1"),
              "m1": MEMIF.format(1, "server", 1, "no"), "m2": MEMIF.format(2, "client", 2, "yes"),
              "v1": "dpdk:net_vhost1,iface=/run/vhost1.sock",
              "v2": "dpdk:net_virtio_user2,path=/run/vhost2.sock"},
             (("wan", "lan"), ("m1", "m2"), ("v1", "v2")))


def states(f):
    return {p["name"]: (p["link"], p["mode"]) for p in f.status()["ports"]}


def joined(f):
    return all(states(f)[p] == ("up", "dpdk") for p in ("m1", "m2", "v1", "v2"))


def alone(f):
    """Those that listen go on listening; those that connected are closed until they can again."""
    seen = states(f)
    return all(seen[p] == ("down", "dpdk") for p in ("m1", "v1")) and \
        all(seen[p] == ("down", "closed") for p in ("m2", "v2"))


def fds(f):
    """What its descriptors are, without their numbers."""
    found = []
    for fd in os.listdir(f"/proc/{f.pid}/fd"):
        try:
            name = os.readlink(f"/proc/{f.pid}/fd/{fd}")
        except OSError:
            continue
        found.append(name.split("[")[0] if name.startswith("socket:") else name)
    return sorted(found)


def dies_and_returns():
    """a peer dies and comes back, again and again, under traffic; both ends of memif and vhost"""
    m = Pairs()
    two = Culvert(TWO)
    for device, path in (("net_memif2", "/run/memif2.sock (abstract)"),
                         ("net_virtio_user2", "/run/vhost2.sock")):
        lines = [x for x in two.log().splitlines() if f"{device} waits for its peer" in x]
        expect(len(lines) == 1 and f"nobody listens at {path}; " in lines[0], two.log())
    for host, far in ((m.c, 4), (m.d, 3)):
        subprocess.Popen([*host.prefix(), "ping", "-q", "-n", "-i", "0.002", "-s", "1000",
                          f"10.77.0.{far}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = []

    def rounds():
        for i in range(harness.OPTIONS.rounds or ROUNDS):
            one = Culvert(ONE)
            wait_for("all links are up", lambda: joined(two))
            m.second_crosses()
            if i == 1:
                before.extend(fds(two))
            elif i > 1:
                wait_for("the same descriptors as after the first time",
                         lambda: fds(two) == before or say(fds(two), before), every=0.5, seconds=5)
            if i % 2:
                one.end()
            else:
                one.stop(signal.SIGKILL, expect_code=-signal.SIGKILL)
            wait_for("all links are down", lambda: alone(two))
            two.check_law()
    m.alongside(rounds)
    log = two.log()
    expect(log.count("its peer is gone; it is opened again when it is back") ==
           2 * (harness.OPTIONS.rounds or ROUNDS), "a line for each time the peer went:\n" + log)
    k = two.port("m1")["queues"][0]["kernel"]
    expect(k["mbufs_in_use"] < k["mbufs"], str(k))
    two.end()
    m.unchanged()


def mute():
    """a peer that listens and never answers holds up nobody; then one that does takes its place"""
    m = Pairs()
    f = Culvert(config({"wan": packet("p0"), "lan": packet("p1")}, (("wan", "lan"),)))
    listeners = []
    for kind, path in ((socket.SOCK_STREAM, "/run/mute1.sock"),
                       (socket.SOCK_SEQPACKET, "/run/mute2.sock")):
        listeners.append(socket.socket(socket.AF_UNIX, kind))
        listeners[-1].bind(path)
        listeners[-1].listen(1)

    def attached():
        told = f.ask("attach", "dpdk:net_virtio_user1,path=/run/mute1.sock").stdout
        expect("what listens at /run/mute1.sock does not answer" in told, told)
        f.ask("attach", "dpdk:net_memif2,socket=/run/mute2.sock,socket-abstract=no")
        f.wait_log("its peer does not answer")
    m.alongside(attached)
    for s in listeners:
        s.close()
    os.unlink("/run/mute1.sock")
    other = Culvert(config({"v": "dpdk:net_vhost1,iface=/run/mute1.sock",
                            "m": "dpdk:net_memif2,role=server,socket=/run/mute2.sock,"
                                 "socket-abstract=no"}, (("v", "m"),)))
    wait_for("both are joined", lambda: all(link == "up" for link, _ in states(f).values()))
    other.end()
    f.end()
    m.unchanged()


def two_hosts():
    """Two hosts with addresses, and a culvert of DPDK's packet sockets between them."""
    m = Pairs()
    for i, host, device in ((1, m.a, "a0"), (2, m.b, "b0")):
        host.run("ip", "addr", "add", f"10.77.0.{i}/24", "dev", device)
    f = Culvert(config({"wan": packet("p0"), "lan": packet("p1")}, (("wan", "lan"),)))
    m.reachable()
    return m, f


def asked():
    """frames cross while a port that is attached waits for an answer of its peer"""
    m, f = two_hosts()
    tries = []

    def crossed():
        """One question; the machine may be too slow for an echo within it."""
        path = f"/run/asked{len(tries)}.sock"
        device = f"dpdk:net_virtio_user{len(tries)},path={path}"
        tries.append(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(path)
            listener.listen(8)
            listener.settimeout(harness.PATIENCE)
            attach = subprocess.Popen([harness.OPTIONS.culvert, "attach", device, "--socket",
                                       f.socket], stdout=subprocess.DEVNULL)
            question, _ = listener.accept()
            with question:
                expect(len(question.recv(12, socket.MSG_WAITALL)) == 12, "no question")
                echo = m.a.run("ping", "-n", "-c1", "-W1", "10.77.0.2", check=False)
                question.setblocking(False)
                try:
                    during = question.recv(1) != b""
                except BlockingIOError:
                    during = True
            expect(attach.wait(harness.PATIENCE) == 0, "attach failed")
            f.ask("detach", device)
        os.unlink(path)
        return during and echo.returncode == 0
    wait_for("an echo while the peer is asked", crossed)
    f.end()
    m.unchanged()


@contextlib.contextmanager
def silent(path):
    """A vhost-user back end that answers culvert's own question, and none of the driver's: yields
    what waits until the driver has asked one."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(path)
        stack.callback(os.unlink, path)
        listener.listen(8)
        listener.settimeout(harness.PATIENCE)

        def asker():
            """Who connects, and what it asks (vhost-user: request, flags, size)."""
            s, _ = listener.accept()
            stack.enter_context(s)
            return s, struct.unpack("<III", s.recv(12, socket.MSG_WAITALL))[0]

        def driver_waits():
            driver, request = asker()
            while request == 1:  # features: culvert itself; a driver says something else first
                driver.sendall(struct.pack("<IIIQ", 1, 5, 8, 1 << 32))  # VIRTIO_F_VERSION_1
                driver.close()
                driver, request = asker()
            return driver
        yield driver_waits


def change(f, *words):
    return subprocess.Popen([harness.OPTIONS.culvert, *words, "--socket", f.socket],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def opening():
    """while a driver opens a port frames cross and status is answered; another change waits"""
    m, f = two_hosts()
    path = "/run/opening.sock"
    device = f"dpdk:net_virtio_user0,path={path}"
    with silent(path) as driver_waits:
        first = change(f, "attach", device)
        driver_waits()
        m.reachable()
        expect(f.port(device)["mode"] == "opening", f.port(device))
        expect("opening: its driver has not come back yet" in f.ask("status").stdout,
               f.ask("status").stdout)
        f.check_law()
        second = change(f, "attach", "dpdk:net_null0")
        gone = change(f, "attach", "dpdk:net_null1")
        time.sleep(0.5)
        gone.kill()
        gone.wait()
        m.reachable()
        expect(first.poll() is None and second.poll() is None, "the driver does not wait")
    first.communicate(timeout=harness.PATIENCE)
    told = second.communicate(timeout=harness.PATIENCE)[0]
    expect(second.returncode == 0 and "attached dpdk:net_null0" in told, told)
    f.port("dpdk:net_null0")
    expect(all(p["device"] != "dpdk:net_null1" for p in f.status()["ports"]),
           "a change is made though who asked for it has gone")
    m.reachable()
    f.end()
    m.unchanged()


def addresses():
    """while a driver opens, a new address of the host is its own; then, what went is seen gone"""
    m = Machine(addresses=True)
    f = Culvert(config({"wan": "p0", "lan": "p1"}, (("wan", "lan"),)))
    path = "/run/addresses.sock"
    veth("p2", m.b, "b2")
    f.ask("attach", "p2")
    device = f"dpdk:net_virtio_user0,path={path}"
    f.ask("attach", device)
    with silent(path) as driver_waits:
        driver_waits()
        run("ip", "addr", "add", "10.77.0.9/24", "dev", "p0")
        wait_for("the host answers at its new address", lambda: m.a.run(
            "ping", "-c1", "-W1", "-n", "10.77.0.9", check=False).returncode == 0, 10)
        m.reachable()
        run("ip", "link", "del", "p2")
        time.sleep(0.5)
        expect(f.port(device)["mode"] == "opening", "the driver does not wait")
    wait_for("the device is seen gone", lambda: f.port("p2")["link"] == "gone", 10)
    run("ip", "addr", "del", "10.77.0.9/24", "dev", "p0")
    f.end()
    m.unchanged()


def told_to_end(m, f, name, doing):
    """SIGTERM while the driver of a port hangs."""
    expect(f.port(name)["mode"] == doing, f.port(name))
    began = time.monotonic()
    f.stop(seconds=20)
    say(f"ended after {time.monotonic() - began:.1f} s")
    lines = [x for x in f.log().splitlines() if "has not come back" in x]
    expect(len(lines) == 1 and f"port {name} (" in lines[0] and f"from {doing} it" in lines[0],
           f.log())
    expect("error:" not in f.log() and "Sanitizer" not in f.log(), f.log())
    expect(not os.path.exists(f.socket), "the control socket is left")
    m.unchanged()


def ends():
    """SIGTERM ends it while a driver opens a port, attached, at start and again, and never does"""
    path = "/run/ends.sock"
    device = f"dpdk:net_virtio_user0,path={path}"
    with_it = config({"wan": packet("p0"), "lan": packet("p1"), "late": device}, (("wan", "lan"),))
    m, f = two_hosts()
    with silent(path) as driver_waits:
        client = change(f, "attach", device)
        driver_waits()
        m.reachable()
        told_to_end(m, f, device, "opening")
        told = client.communicate(timeout=harness.PATIENCE)[0]
        expect(client.returncode == 1 and "culvert is stopping" in told, told)
    with silent(path) as driver_waits:
        f = Culvert(with_it, ready=False)
        driver_waits()
        told_to_end(m, f, "late", "opening")
    f = Culvert(with_it)
    expect(f.port("late")["mode"] == "closed", f.port("late"))
    with silent(path) as driver_waits:
        driver_waits()
        told_to_end(m, f, "late", "opening")


def refused():
    """a driver that takes long to fail is not asked again at once"""
    path = "/run/refused.sock"
    f = Culvert(config({"late": f"dpdk:net_virtio_user0,path={path}", "n": "dpdk:net_null0"},
                       (("late", "n"),)))
    with silent(path) as driver_waits:
        driver = driver_waits()
        time.sleep(5)
        driver.close()
        failed = time.monotonic()
        driver_waits()
        gap = time.monotonic() - failed
        say(f"asked again after {gap:.1f} s")
        expect(gap > 3, f"asked again after {gap:.1f} s")
    f.end()


def closing():
    """a peer that hangs when its port is closed holds up neither frames nor status nor the end"""
    path = "/run/closing.sock"
    device = f"dpdk:net_virtio_user0,path={path}"
    other = Culvert(config({"v": f"dpdk:net_vhost1,iface={path}", "n": "dpdk:net_null0"},
                           (("v", "n"),)))
    m, f = two_hosts()
    for wakes in (True, False):
        f.ask("attach", device)
        f.ask("attach", "dpdk:net_null1")
        wait_for("they are joined", lambda: f.port(device)["link"] == "up")
        os.kill(other.pid, signal.SIGSTOP)
        detach = change(f, "detach", device, "dpdk:net_null1")
        wait_for("it is closed", lambda: f.port(device)["mode"] == "closing")
        m.reachable()
        f.check_law()
        expect(detach.poll() is None, "the driver does not wait")
        if wakes:
            os.kill(other.pid, signal.SIGCONT)
            told = detach.communicate(timeout=harness.PATIENCE)[0]
            expect(detach.returncode == 0, told)
    told_to_end(m, f, device, "closing")
    told = detach.communicate(timeout=harness.PATIENCE)[0]
    expect(detach.returncode == 1 and "culvert is stopping" in told, told)
    last = f.log().split("has not come back from closing it")[1]
    expect(": closed" not in last, "a port that is not closed is said to be:\n" + last)
    os.kill(other.pid, signal.SIGCONT)
    with_it = config({"wan": packet("p0"), "xdp": "p1", "late": device}, (("wan", "late"),))
    f = Culvert(with_it)
    wait_for("they are joined", lambda: f.port("late")["link"] == "up")
    os.kill(other.pid, signal.SIGSTOP)
    began = time.monotonic()
    f.stop(seconds=20)
    say(f"ended after {time.monotonic() - began:.1f} s")
    expect("port late (" in f.log() and "has not come back from closing it" in f.log(), f.log())
    m.unchanged()
    os.kill(other.pid, signal.SIGCONT)
    other.end()


main(dies_and_returns, mute, asked, opening, addresses, ends, refused, closing)
