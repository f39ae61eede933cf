"""Many connections: opened and closed at random points, all bytes checked; and held idle."""
import resource

from harness import (LONG, PEER, SLOW, Process, Relay, Server, check, equal, eventually, load,
                     main)


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


def test_memory_of_idle_connections():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # Two descriptors each in the relay, and some to spare.
    n = min(20000 if LONG else 2000, (hard - 300) // 2)
    server = Server()
    relay = Relay("tcp:127.0.0.1:0", server.where)
    load(relay.where, connections=50, concurrent=10, up="300k", down="300k")
    relay.idle_again()
    before = relay.memory()
    hold = Process([PEER, "load", "--kind", "hold", "--connections", str(n), relay.where])
    eventually(lambda: any("held" in line for line in hold.out), lambda: f"held: {hold.out} {hold.err}",
               40)
    grown, pipes = (relay.memory() - before) / n, relay.pipes()
    print(f"# {n} idle connections: {grown:.0f} bytes each, {pipes} descriptors of pipes")
    check(grown <= 2048 or SLOW > 1, f"{grown:.0f} bytes for each of {n} idle connections")
    check(pipes < n / 4, f"{pipes} descriptors of pipes for {n} idle connections")
    relay.quiet(what=f": {n} idle connections")
    hold.p.stdin.close()
    hold.wait()
    relay.idle_again(30)
    relay.stop()
    server.finish()


main()
