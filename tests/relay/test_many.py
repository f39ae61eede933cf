"""Many connections: opened and closed at random points, all bytes checked; and held idle."""
import json
import resource
import signal

from harness import (DEADLINE, LONG, PEER, SLOW, Process, Relay, Server, check, equal, eventually,
                     load, main)


def random_points(engine, n, **more):
    server = Server()
    relay = Relay("tcp:127.0.0.1:0", server.where, engine=engine, **more)
    got = load(relay.where, connections=n, concurrent=100, up="1M", down="1M", kind="random",
               seed=n + len(engine))
    equal(got["ok"], n, "connections")
    relay.idle_again(20)
    relay.stop()
    server.finish()


def test_random_points_auto():
    random_points("auto", 10000 if LONG else 500)


def test_random_points_splice():
    random_points("splice", 10000 if LONG else 300)


def test_random_points_copy():
    random_points("copy", 10000 if LONG else 200)


def test_random_points_two_workers():
    random_points("auto", 10000 if LONG else 300, workers=2)


def test_random_points_few_descriptors():
    """The descriptors are just enough: pipes must give way, and connections wait their turn."""
    server = Server()
    relay = Relay("tcp:127.0.0.1:0", server.where, limit=128)
    load(relay.where, connections=400, concurrent=40, up="300k", down="300k")
    relay.stop()
    server.finish()


def test_workers_share_evenly():
    """Not by hash alone: of 100 connections each of two workers has its part of the work."""
    server = Server()
    relay = Relay("tcp:127.0.0.1:0", server.where, workers=2)
    hold = Process([PEER, "load", "--kind", "hold", "--connections", "100", relay.where])
    eventually(lambda: any("held" in line for line in hold.out), lambda: f"held: {hold.out} {hold.err}")
    # Each connection is two descriptors in one worker's epoll set.
    sets = []
    for fd, link in relay.links():
        if "eventpoll" in link:
            with open(f"/proc/{relay.pid}/fdinfo/{fd}", encoding="ascii") as f:
                sets.append(f.read().count("tfd:"))
    busy = sorted(sets)[-2:]
    check(len(busy) == 2 and busy[0] >= 80 and busy[1] <= 130, f"descriptors in epoll sets: {sets}")
    hold.p.stdin.close()
    hold.wait()
    relay.stop()
    server.finish()


class Idle:
    """A relay with n idle connections, and a client and a server of their own."""

    def __init__(self, n):
        self.n = n
        self.server = Server()
        self.relay = Relay("tcp:127.0.0.1:0", self.server.where)
        load(self.relay.where, connections=50, concurrent=10, up="300k", down="300k")
        self.relay.idle_again()
        self.memory, self.pipes = self.relay.memory(), self.relay.pipes()
        self.hold = Process([PEER, "load", "--kind", "rest", "--connections", str(n), "--up", "1000",
                             "--deadline", str(120 * SLOW), self.relay.where])

    def held(self):
        check(self.hold.p.poll() is None, f"held: {self.hold.out} {self.hold.err}")
        return any("held" in line for line in self.hold.out)

    def go_on(self):
        """After the rest each connection carries bytes, which are checked, to its end."""
        self.hold.p.stdin.close()
        equal(self.hold.wait(60), 0, f"exit code, {self.hold.out}")
        equal(json.loads(self.hold.out[-1])["ok"], self.n, "connections that were still good")


def test_idle_connections():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    n = 20000 if LONG else 2000
    signal.alarm((300 if LONG else DEADLINE) * SLOW)
    # Two descriptors each in the relay, and some to spare: as many relays as that takes.
    count = -(-n // ((hard - 300) // 2))
    groups = [Idle(n // count + (i < n % count)) for i in range(count)]
    equal(sum(g.n for g in groups), n, "connections")
    eventually(lambda: all([g.held() for g in groups]), lambda: "all held at once", 120)
    equal(sum(g.relay.sockets() - g.relay.baseline for g in groups), 2 * n, "sockets of the relays")
    grown = sum(g.relay.memory() - g.memory for g in groups) / n
    pipes = sum(g.relay.pipes() for g in groups)
    print(f"# {n} idle connections through {count} relays, each with at most {hard} descriptors: "
          f"{grown:.0f} bytes of user memory (RssAnon) and {pipes / n:.4f} descriptors of pipes each")
    check(grown <= 2048 or SLOW > 1, f"{grown:.0f} bytes for each of {n} idle connections")
    # Those of the pool from before; none is a connection's.
    check(pipes <= sum(g.pipes for g in groups), f"{pipes} descriptors of pipes")
    # Each lets the timer of its connect (5 s) run out, once.
    for g in groups:
        g.relay.quiet(what=f": {g.n} idle connections", looks=8)
    for g in groups:
        g.go_on()
    for g in groups:
        g.relay.idle_again(30)
        g.relay.stop()
        equal(g.relay.totals()["connections"], 50 + g.n, "connections counted")
        g.server.finish()


main()
