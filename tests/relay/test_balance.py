"""Load balancing, health checks and retries."""
import collections
import ctypes
import os
import socket
import time

from harness import (Listener, Relay, Skip, ask, check, echo, equal, eventually, full_listener,
                     keep, main, path, receive, run, saying, try_connection, wait_readable)

CLONE_NEWNS = 0x20000


def hosts_with(*lines):
    """Names that this program and what it starts can resolve, and no one else."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() or libc.unshare(CLONE_NEWNS):
        raise Skip("a mount namespace of its own takes root")
    name = path("hosts")
    with open(name, "w", encoding="ascii") as f:
        f.write("\n".join(("127.0.0.1 localhost", *lines)) + "\n")
    run("mount", "--make-rprivate", "/")
    run("umount", "/etc/hosts")  # of an earlier test
    code, said = run("mount", "--bind", name, "/etc/hosts")
    equal(code, 0, said)


def listeners(*names):
    return [Listener(handler=saying(n)) for n in names]


def count(relay, n, **more):
    return collections.Counter(ask(relay.where, **more) for _ in range(n))


def test_round_robin():
    relay = Relay("tcp:127.0.0.1:0", *(t.where for t in listeners("a", "b", "c")))
    equal(dict(count(relay, 30)), {"a": 10, "b": 10, "c": 10}, "answers")
    relay.stop()


def test_weights():
    a, b = listeners("a", "b")
    relay = Relay("tcp:127.0.0.1:0", a.where + " weight=3", b.where)
    equal(dict(count(relay, 40)), {"a": 30, "b": 10}, "answers")
    relay.stop()


def test_least_connections():
    a, b = (Listener(handler=echo) for _ in range(2))
    relay = Relay("tcp:127.0.0.1:0", a.where, b.where, balance="least_connections")
    held = []
    for _ in range(10):
        held.append(relay.connect())
        held[-1].sendall(b"x")
        equal(receive(held[-1], 1), b"x", "echo")
    equal((a.accepted, b.accepted), (5, 5), "spread evenly")
    # Those of one target end: the next ones go there. Which is whose shows in who was last.
    for s in held:
        s.close()
    relay.idle_again()
    relay.stop()


def test_least_connections_follows_what_ends():
    first = Listener(handler=echo)
    second = Listener(handler=saying("short"))
    relay = Relay("tcp:127.0.0.1:0", first.where, second.where, balance="least_connections")
    held = []
    # Every connection to `second` ends at once; so `first` keeps one, and no more than a few.
    for _ in range(20):
        s = relay.connect()
        s.sendall(b"dwell")
        if receive(s, 5) == b"short":
            s.close()
            eventually(lambda n=len(held): relay.sockets() <= relay.baseline + 2 * n, "it ends")
        else:
            held.append(s)
    check(len(held) <= 3, f"{len(held)} of 20 went to the busy target")
    for s in held:
        s.close()
    relay.stop()


def test_source_hash():
    names = "abcd"
    relay = Relay("tcp:127.0.0.1:0", *(t.where for t in listeners(*names)), balance="source_hash")
    seen = set()
    for host in range(1, 25):
        got = count(relay, 4, source=f"127.0.0.{host}")
        equal(len(got), 1, f"127.0.0.{host} always goes to one target, got {dict(got)}")
        seen |= set(got)
    check(len(seen) >= 3, f"24 sources are spread over {seen}")
    relay.stop()


def test_retry_on_another_target():
    dead, alive = listeners("dead", "alive")
    dead.close()
    relay = Relay("tcp:127.0.0.1:0", dead.where, alive.where)
    equal(dict(count(relay, 12)), {"alive": 12}, "answers")
    relay.stop()


def test_retry_stops():
    targets = [t.where for t in listeners("a", "b", "c")]
    relay = Relay("tcp:127.0.0.1:0", *[t.replace("127.0.0.1", "127.0.0.250") for t in targets],
                  "unix:/nonexistent/socket", retries=5, connect_timeout="1s")
    for t in range(3):
        began = time.monotonic()
        try_connection(relay.where)
        check(time.monotonic() - began < 15, f"connection {t} given up")
    relay.stop()


def test_a_name_with_several_addresses():
    """One of them, that nobody listens at, costs no connection and is asked no more than now and
    then; the target is not down for it. So is localhost where a program listens on IPv4 alone."""
    dead, alive = "127.0.9.1", "127.0.9.2"
    hosts_with(f"{dead} several.test", f"{alive} several.test", f"{dead} gone.test",
               "127.0.9.3 gone.test")
    target = Listener(f"tcp:{alive}:0", handler=saying("a"))
    name = f"tcp:several.test:{target.where.rpartition(':')[2]}"
    other = Listener(handler=saying("b"))
    for targets, n, settings in (((name,), 40, {}), ((name, other.where), 19, {}),
                                 ((name,), 40, {"health": "50ms", "health_failures": 1})):
        before = target.accepted
        relay = Relay("tcp:127.0.0.1:0", *targets, **settings)
        for i in range(40):
            check(ask(relay.where) in ("a", "b"), f"{settings}: connection {i + 1} has no answer")
        check(target.accepted - before >= n, f"{settings}: {target.accepted - before} came to it")
        equal(relay.logged("is down"), [], "log")
        relay.stop()
        check(relay.totals()["retries"] <= 1, f"{settings}: {relay.totals()['retries']} retries")
    # Without a second attempt the one that finds out is lost, and no other.
    relay = Relay("tcp:127.0.0.1:0", name, retries=0)
    check(sum(ask(relay.where) is None for _ in range(20)) == 1, "one attempt each")
    relay.stop()
    # When none is left it is down, as any other.
    relay = Relay("tcp:127.0.0.1:0", name.replace("several", "gone"), other.where)
    for i in range(10):
        equal(ask(relay.where), "b", f"connection {i + 1}")
    equal(len(relay.logged("gone.test:[0-9]+ is down after 3 failures")), 1, f"{relay.err}")
    relay.stop()


def test_a_name_with_several_addresses_and_datagrams():
    hosts_with("127.0.9.1 several.test", "127.0.9.2 several.test")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.9.2", 0))
        target.settimeout(0.2)
        relay = Relay("udp:127.0.0.1:0", f"udp:several.test:{target.getsockname()[1]}")
        for i in range(4):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.connect(("127.0.0.1", relay.port))

                def arrives(client=client):
                    client.send(b"x")
                    try:
                        return target.recv(1)
                    except TimeoutError:
                        return None
                eventually(arrives, f"session {i + 1}: a datagram at the address that is there")
        relay.stop(leak=False)
        equal(relay.totals()["connections"], 4, "sessions: one goes on with the other address")


def test_backup():
    main_target, backup = listeners("main", "backup")
    relay = Relay("tcp:127.0.0.1:0", main_target.where, backup.where + " backup", health="100ms",
                  health_failures=1)
    equal(dict(count(relay, 8)), {"main": 8}, "while the main target is up")
    main_target.close()
    equal(dict(count(relay, 8)), {"backup": 8}, "while it is down")
    again = Listener(main_target.where, handler=saying("main"))
    eventually(lambda: ask(relay.where) == "main", "the main target is used again", 15)
    again.close()
    relay.stop()


def test_active_health_check():
    a, b = listeners("a", "b")
    relay = Relay("tcp:127.0.0.1:0", a.where, b.where, health="100ms", health_failures=2)
    check(set(count(relay, 8)) == {"a", "b"}, "both in use")
    a.close()
    # No connection tells it: the probes do.
    time.sleep(1)
    equal(dict(count(relay, 8)), {"b": 8}, "after the probes failed")
    check(relay.logged(r"(?i)down|unhealthy|fail"), f"the log says so: {relay.err}")
    Listener(a.where, handler=saying("a"))
    eventually(lambda: ask(relay.where) == "a", "back after a probe", 15)
    relay.stop()


def test_passive_health_check():
    """Without probes of its own accord: failures take a target out, a probe brings it back."""
    a, b = listeners("a", "b")
    a.close()
    relay = Relay("tcp:127.0.0.1:0", a.where, b.where, health_failures=3)
    equal(dict(count(relay, 12)), {"b": 12}, "answers")
    Listener(a.where, handler=saying("a"))
    eventually(lambda: ask(relay.where) == "a", "back after a probe", 20)
    relay.stop()


def test_probes_do_not_disturb():
    """A health check must not count as a connection nor leave anything behind."""
    a = Listener(handler=saying("a"))
    relay = Relay("tcp:127.0.0.1:0", a.where, health="50ms")
    eventually(lambda: a.accepted >= 5, "probes come")
    relay.idle_again()
    equal(ask(relay.where), "a", "answer")
    relay.stop()


def test_connect_timeout_goes_on_to_the_next():
    """A target that takes no connection: its backlog is full."""
    full = full_listener()
    good = Listener(handler=saying("good"))
    relay = Relay("tcp:127.0.0.1:0", full.where, good.where, connect_timeout="300ms")
    for _ in range(4):
        equal(ask(relay.where), "good", "answer")
    relay.stop()


def test_a_full_unix_target_is_not_down():
    """Its queue is full (EAGAIN): connections wait for it, and it counts as failed only after the
    time for connecting."""
    target = Listener("unix:" + path("full"), backlog=0)
    relay = Relay("tcp:127.0.0.1:0", target.where, connect_timeout="20s", health="100ms",
                  health_failures=1)
    filler = fill(target.where)
    clients = [relay.connect() for _ in range(5)]
    for c in clients:
        c.sendall(b"hello")
    time.sleep(0.5)
    check(not wait_readable(clients[0], 0), "nobody was turned away")
    relay.quiet(most=200, what=": a target is full")  # five clients, ever more rarely
    served = set()
    while len(served) < len(clients):
        c = target.accept()
        if wait_readable(c, 0.2) and receive(c, 5) == b"hello":  # the others fill, or probe
            served.add(c)
    for s in filler + list(served) + clients:
        s.close()
    relay.stop()  # before the target, which a probe would find gone
    target.close()
    equal((relay.totals()["errors"], relay.totals()["connections"]), (0, 5), "counted")
    check(not relay.logged("is down"), f"it was never down: {relay.err}")

    target = Listener("unix:" + path("stuck"), backlog=0)
    relay = Relay("tcp:127.0.0.1:0", target.where, connect_timeout="300ms", health_failures=1)
    filler = fill(target.where)
    equal(try_connection(relay.where), "reset", "a target that never accepts")
    relay.stop()
    equal(relay.totals()["connect_timeout"], 1, "counted")
    check(relay.logged(r"is down.*timed out"), f"told: {relay.err}")


def fill(where):
    """Connections until a unix listener takes no more."""
    held = []
    while True:
        s = keep(socket.socket(socket.AF_UNIX))
        s.setblocking(False)
        try:
            s.connect(where[5:])
        except BlockingIOError:
            s.close()
            return held
        held.append(s)


main()
