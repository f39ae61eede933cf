"""The relay beside HAProxy, nginx and Go's io.Copy, and no relay at all, in one run.

One relay thread each, ends as cheap as they can be, cubic in a network namespace of its own.
Cheap ends are still half of what a small message or a connection costs, so these are measured twice:
with them, and with free ends (reflect.c), where what the relay sends comes back to it by itself.
All are up while a part is measured and take many short turns, in another order each time, so that
what else the machine does hits all alike. Each figure is the median of the turns, each ratio the
median of the ratios of the same turn. What is not installed is left out and said so.

  ROUNDS (6) of GIGABYTES (2) for bulk; TURNS (15) of DURATION (0.7 s) for small messages
"""
import json
import os
import random
import re
import socket
import statistics
import subprocess
import time

import relays
from relays import (cpu_seconds, culvert, ends, folder, go_build, go_proxy, haproxy, nginx,
                    reflected, reflector, server, start, stop)

ALLOCATED = os.environ.get("ALLOCATED_LIBRARY", "")
ROUNDS = int(os.environ.get("ROUNDS", "6"))
GIGABYTES = float(os.environ.get("GIGABYTES", "2"))
TURNS = int(os.environ.get("TURNS", "15"))
SECONDS = float(os.environ.get("DURATION", "0.7"))
COPIES = 3  # rounds of the 1 MB copies
IDLE = 1000
FREE = "free_"


def memory(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"^RssAnon:\s+(\d+)", f.read(), re.M)[1]) * 1024


def pipes(pid):
    n = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            n += os.readlink(f"/proc/{pid}/fd/{fd}").startswith("pipe:")
        except OSError:
            pass
    return n


def bulk(connections):
    def measure(port, pid, got):
        cpu = cpu_seconds(pid) if pid else 0
        size = int(GIGABYTES * 1e9 / connections)
        r = ends("bulk", port, connections, size)
        got.setdefault(f"bulk{connections}", []).append(r["bytes"] * 8 / r["seconds"] / 1e9)
        if pid:
            got.setdefault("cpu", []).append((cpu_seconds(pid) - cpu) / r["bytes"] * 1e9)
    return measure


def small(mode, at_once):
    """What a client does for SECONDS with so many connections at once; "free_..." is reflect.c's."""
    free = mode.startswith(FREE)

    def measure(port, pid, got):
        if not pid and free:
            return
        cpu = cpu_seconds(pid) if pid else 0
        r = reflected(mode.removeprefix(FREE), port, at_once, SECONDS) if free \
            else ends(mode, port, at_once, SECONDS)
        got.setdefault(mode, []).append(r["rate"] / 1000)
        got.setdefault(mode + "_p99", []).append(r["p99_us"] / 1000)
        if pid:
            cpu = (cpu_seconds(pid) - cpu) * 1e6 / max(1, r.get("all", r["done"]))
            got.setdefault(mode + "_cpu", []).append(cpu)
    return measure


def idle(port, pid, got):
    """Memory of its own for each connection that said something once and is silent now."""
    if not pid:
        return
    held = []
    before, before_pipes = 0, 0
    for i in range(IDLE + 50):
        if i == 50:  # what it allocates once is not counted
            before, before_pipes = memory(pid), pipes(pid)
        s = socket.create_connection(("127.0.0.1", port), 20)
        s.sendall(b"x" * 100)
        s.recv(100)
        held.append(s)
    time.sleep(0.2)
    got.setdefault("idle", []).append((memory(pid) - before) / IDLE)
    got.setdefault("idle_pipes", []).append((pipes(pid) - before_pipes) / IDLE)
    for s in held:
        s.close()


# What it is called, the server, what each contestant does in its turn, and how many turns.
PARTS = (("bulk", "sink", (bulk(1), bulk(8)), ROUNDS),
         ("idle connections", "echo", (idle,), 1),
         ("ping-pong", "echo", (small("ping", 64),), TURNS),
         ("ping-pong, free ends", "free", (small("free_ping", 64),), TURNS),
         ("connect", "once", (small("connect", 32),), TURNS),
         ("connect, free ends", "free", (small("free_connect", 32),), TURNS))


def contest(contestants):
    """Each contestant's figures, one a turn, under the name of what was measured."""
    results = {name: {} for name in contestants}
    chance = random.Random(1)
    for title, mode, measures, turns in PARTS:
        target, target_port = reflector() if mode == "free" else server(mode)
        if not target:
            continue
        up = {name: run(target_port) if run else (None, target_port)
              for name, run in contestants.items()}
        order = list(up.items())
        for _ in range(turns):
            chance.shuffle(order)  # nobody always comes behind the same one
            for name, (p, port) in order:
                for measure in measures:
                    measure(port, p.pid if p else None, results[name])
        for p, _ in up.values():
            if p:
                stop(p)
        stop(target)
        print(f"{title}: {turns} turns done", flush=True)
    return results


def table(results):
    results = {name: {k: statistics.median(v) for k, v in got.items()}
               for name, got in results.items()}
    bulk_columns = (("bulk 1", "Gbit/s", "bulk1", 1), ("bulk 8", "Gbit/s", "bulk8", 1),
                    ("CPU/GB", "s", "cpu", 3), ("idle", "B/conn", "idle", 0),
                    ("pipes", "fd/conn", "idle_pipes", 2))
    small_columns = [(title, unit, mode + more, digits)
                     for name, mode, rate_digits in (("ping-pong", "ping", 1),
                                                     ("free ends", "free_ping", 1),
                                                     ("connect", "connect", 2),
                                                     ("free ends", "free_connect", 2))
                     for title, unit, more, digits in ((name, "k/s", "", rate_digits),
                                                       ("p99", "ms", "_p99", 2),
                                                       ("CPU", "us", "_cpu", 1))]
    for columns in (bulk_columns, small_columns):
        widths = [max(8, len(title) + 2) for title, _, _, _ in columns]
        print(f"\n{'':15}" + "".join(f"{c[0]:>{w}}" for c, w in zip(columns, widths)))
        print(f"{'':15}" + "".join(f"{c[1]:>{w}}" for c, w in zip(columns, widths)))
        for name, r in results.items():
            print(f"{name:15}" + "".join(f"{r[key]:{w}.{digits}f}" if key in r else f"{'-':>{w}}"
                                         for (_, _, key, digits), w in zip(columns, widths)))


def ratio(ours, theirs):
    """The median of the ratios of the same turn, and between what half of them lie."""
    # On a machine that stood still for a whole turn there is no figure.
    each = [a / b for a, b in zip(ours, theirs) if b] or [float("nan")]
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive") \
        if len(each) > 1 else each * 3
    return f"{middle:6.2f}   {low:5.2f} to {high:4.2f}"


def best_of(peers, key, best):
    """The peer whose median is the best."""
    have = [name for name in peers if key in peers[name]]
    return best(have, key=lambda name: statistics.median(peers[name][key])) if have else None


def ratios(results):
    """culvert auto's figures as ratios to the best of the peers, beside the goals."""
    us, alone = results["culvert auto"], results["no relay"]
    hap = {n: r for n, r in results.items() if n.startswith("haproxy")}
    small_peers = {**hap, **{n: r for n, r in results.items() if n == "nginx"}}
    go = {n: r for n, r in results.items() if n == "go"}
    rows = [("bulk, 1 connection, to HAProxy's best", "bulk1", hap, max, "at least 1.5"),
            ("bulk, 8 connections, to HAProxy's best", "bulk8", hap, max, "at least 1.5"),
            ("bulk, 1 connection, to Go", "bulk1", go, max, "at least 1.8"),
            ("bulk, 8 connections, to Go", "bulk8", go, max, "at least 1.8"),
            ("CPU a GB, to HAProxy's best", "cpu", hap, min, "at most 0.5"),
            ("ping-pong, to the best peer", "ping", small_peers, max, "1.2, but half is the ends"),
            ("ping-pong p99, to the best peer", "ping_p99", small_peers, min, "at most 1"),
            ("- free ends, to the best peer", "free_ping", small_peers, max, "at least 1.2"),
            ("- free ends p99, to the best peer", "free_ping_p99", small_peers, min, "at most 1"),
            ("- free ends, CPU a round", "free_ping_cpu", small_peers, min, "at most 1/1.2"),
            ("connect, to the best peer", "connect", small_peers, max, "1.1, but half is the ends"),
            ("connect p99, to the best peer", "connect_p99", small_peers, min, "at most 1"),
            ("- free ends, to the best peer", "free_connect", small_peers, max, "at least 1.1"),
            ("- free ends p99, to the best peer", "free_connect_p99", small_peers, min,
             "at most 1"),
            ("- free ends, CPU each", "free_connect_cpu", small_peers, min, "at most 1/1.1")]
    print(f"\n{'culvert auto':42}{'ratio':>6}   half lie in")
    for title, key, peers, best, goal in rows:
        peer = best_of(peers, key, best)
        if peer:
            print(f"{title:42}{ratio(us[key], peers[peer][key])}   goal: {goal} ({peer})")
    for title, key in (("bulk, 1 connection", "bulk1"), ("bulk, 8 connections", "bulk8"),
                       ("ping-pong", "ping"), ("connect", "connect")):
        print(f"{title + ', to no relay':42}{ratio(us[key], alone[key])}")
    print(f"{'memory of an idle connection, bytes':42}{us['idle'][0]:6.0f}   goal: at most 2048")


def copies():
    """The classic: 1 MB from a TCP connection to another, time and heap for each copy."""
    binary = go_build("go_copy.go")
    if not binary:
        print("\n1 MB copies: left out, no go")
        return
    rows = []
    for _ in range(COPIES):
        p = subprocess.run([binary], capture_output=True, text=True, check=True, timeout=300)
        rows += [json.loads(line) for line in p.stdout.splitlines()]
        for engine in ("splice", "copy", "auto"):
            rows.append(copies_of_ours(binary, engine))
    print(f"\n1 MB from one TCP connection to another{'time':>17}{'heap':>16}")
    for name, title in (("copy", "Go, without zero-copy"), ("splice", "Go, with zero-copy"),
                        ("culvert copy", "culvert, copy"), ("culvert splice", "culvert, splice"),
                        ("culvert auto", "culvert, auto")):
        mine = [r for r in rows if r["name"] == name]
        heap = statistics.median(r["bytes"] for r in mine)
        print(f"  {title:38}{statistics.median(r['ns'] for r in mine) / 1000:12.0f} us"
              f"{heap:11.0f} B" + ("" if heap >= 0 else " (not counted)"))


def copies_of_ours(binary, engine):
    p = start([binary, "relay"])
    target = p.stdout.readline().rsplit(":", 1)[1]
    env, heap_file = {}, os.path.join(folder, "allocated")
    if ALLOCATED:
        env = {"LD_PRELOAD": ALLOCATED, "ALLOCATED": heap_file}
    # What it allocates without any copy: the same life, but for the connections.
    base = -1
    if ALLOCATED:
        relay, _ = culvert(engine)(target.strip(), env)
        stop(relay)
        with open(heap_file, encoding="ascii") as f:
            base = int(f.read())
    relay, port = culvert(engine)(target.strip(), env)
    p.stdin.write(f"127.0.0.1:{port}\n")
    p.stdin.flush()
    got = json.loads(p.stdout.readline())
    stop(p)
    stop(relay)
    got["name"], got["bytes"] = "culvert " + engine, -1
    if ALLOCATED:
        with open(heap_file, encoding="ascii") as f:
            got["bytes"] = (int(f.read()) - base) / got["copies"]
    return got


def main():
    relays.say_where()
    contestants = {
        "no relay": None,
        "culvert auto": culvert("auto"),
        "culvert splice": culvert("splice"),
        "culvert copy": culvert("copy"),
        "haproxy splice": haproxy("splice", " option splice-request\n option splice-response"),
        "haproxy auto": haproxy("auto", " option splice-auto"),
        "haproxy copy": haproxy("copy", ""),
        "nginx": nginx(),
        "go": go_proxy(),
    }
    missing = [n for n, run in contestants.items() if not run and n != "no relay"]
    if missing:
        print("not installed, left out:", ", ".join(missing))
    results = contest({n: run for n, run in contestants.items() if n not in missing})
    table(results)
    ratios(results)
    copies()


relays.run(main)
