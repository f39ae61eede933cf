"""Latency of real programs through the relay: at most 1.1 times direct plus one hop.

Each program has one connection and one request in flight. It runs direct, through the cheapest
relay there can be (hop.c: threads that block in recv and send), through culvert and through
HAProxy and nginx, by turns, round by round. A figure is the median of a round (redis-benchmark's is
the mean); printed are the median of the rounds and the best of them, which a busy machine disturbs
less. One hop is what the cheapest relay adds to direct. As a second measure beside it, a hop as one
more round trip over loopback: the 64 B ping-pong without a relay. What is not installed is left
out.

  ROUNDS (9), REQUESTS (10000: of one figure; wrk counts seconds and has one)
"""
import glob
import os
import pwd
import re
import shutil
import statistics
import subprocess

import relays
from relays import (config, culvert, ends, folder, free_port, haproxy, nginx, server, start, stop,
                    until_listening)

HOP = os.environ["HOP"]
ROUNDS = int(os.environ.get("ROUNDS", "9"))
REQUESTS = int(os.environ.get("REQUESTS", "10000"))


def tool(name):
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def text_of(*argv, **more):
    p = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False, timeout=120,
                       **more)
    if p.returncode:
        raise SystemExit(f"{argv}: exit {p.returncode}: {p.stderr}{p.stdout}")
    return p.stdout + p.stderr


def hop(target):
    p = start([HOP, "tcp:127.0.0.1:0", f"tcp:127.0.0.1:{target}"])
    return p, int(p.stdout.readline().rsplit(":", 1)[1])


class Ping:
    """64 bytes there and back."""
    name = "ping-pong 64 B"
    needs = ()

    def start(self):
        _, port = server("echo")
        return port

    def measure(self, port):
        while True:
            got = ends("ping", port, 1, REQUESTS / 20000)
            if got["done"]:  # on a machine that stood still there is no figure
                return got["p50_us"]


class Redis:
    name = "redis-benchmark get"
    needs = ("redis-server", "redis-benchmark")

    def start(self):
        port = free_port()
        p = start([tool("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                   "--appendonly", "no", "--dir", folder], stdout=subprocess.DEVNULL)
        until_listening(port, p)
        return port

    def measure(self, port):
        text = text_of(tool("redis-benchmark"), "-h", "127.0.0.1", "-p", port, "-c", 1, "-n", REQUESTS,
                       "-t", "get", "--csv")
        names, values = (line.strip('"').split('","') for line in text.splitlines()
                         if line.startswith(('"test"', '"GET"')))
        # Its percentiles have steps of 8 us and more; one after another, the rate says the mean.
        return 1e6 / float(dict(zip(names, values))["rps"])


class Postgres:
    name = "pgbench -S"
    needs = ("pgbench",)

    def start(self):
        binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        user = {}
        os.mkdir(folder + "/pg", 0o700)
        os.chmod(folder, 0o755)
        if os.geteuid() == 0:
            uid = pwd.getpwnam("postgres").pw_uid
            os.chown(folder + "/pg", uid, 65534)
            user = {"user": uid, "group": 65534, "extra_groups": [], "cwd": "/"}
        text_of(binaries + "/initdb", "-D", folder + "/pg", "-U", "bench", "-A", "trust", "--no-sync", **user)
        port = free_port()
        p = start([binaries + "/postgres", "-D", folder + "/pg", "-p", str(port), "-h", "127.0.0.1",
                   "-k", "", "-F", "-c", "dynamic_shared_memory_type=mmap"], stdout=subprocess.DEVNULL,
                  stderr=subprocess.DEVNULL, **{k: v for k, v in user.items() if k != "stderr"})
        until_listening(port, p)
        text_of(tool("pgbench"), "-i", "-s", 1, "-q", *self.where(port))
        return port

    def where(self, port):
        return ["-h", "127.0.0.1", "-p", port, "-U", "bench", "postgres"]

    def measure(self, port):
        # A line for each transaction; its third field is its time in microseconds.
        text_of(tool("pgbench"), "-n", "-S", "-M", "prepared", "-c", 1, "-t", REQUESTS, "-l",
                "--log-prefix", folder + "/transactions", *self.where(port))
        times = []
        for name in glob.glob(folder + "/transactions.*"):
            with open(name, encoding="ascii") as f:
                times += [int(x.split()[2]) for x in f]
            os.unlink(name)
        return statistics.median(times)


class Nginx:
    name = "wrk to nginx"
    needs = ("nginx", "wrk")

    def start(self):
        port = free_port()
        conf = config("web", f"""daemon off; master_process off; pid {folder}/web.pid;
error_log {folder}/web.log crit;
events {{ worker_connections 64; }}
http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/a;
 proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d;
 scgi_temp_path {folder}/e;
 server {{ listen 127.0.0.1:{port}; location / {{ return 200 "fine\\n"; }} }} }}
""")
        p = start([tool("nginx"), "-e", folder + "/web.log", "-c", conf])
        until_listening(port, p)
        return port

    def measure(self, port):
        text = text_of(tool("wrk"), "-t", 1, "-c", 1, "-d", "1s", "--latency",
                       f"http://127.0.0.1:{port}/")
        value, unit = re.search(r"50%\s+([0-9.]+)(us|ms|s)", text).groups()
        if "Socket errors" in text or "Non-2xx" in text:
            raise SystemExit(f"wrk: {text}")
        return float(value) * {"us": 1, "ms": 1000, "s": 1e6}[unit]


def contest(program, ways):
    """Name of the way -> its figures, one a round."""
    target = program.start()
    up = {name: (way(target) if way else (None, target)) for name, way in ways.items()}
    got = {name: [] for name in ways}
    for number in range(ROUNDS):
        order = list(ways)
        for name in order[number % len(order):] + order[:number % len(order)]:
            got[name].append(program.measure(up[name][1]))
    for p, _ in up.values():
        if p:
            stop(p)
    return got


def main():
    relays.say_where()
    ways = {"direct": None, "cheapest": hop, "culvert": culvert("auto"),
            "haproxy": haproxy("auto", " option splice-auto"), "nginx": nginx()}
    for name in [n for n, way in ways.items() if not way and n != "direct"]:
        print(f"not installed, left out: {name}")
        del ways[name]
    print(f"\n{'latency, us':22}" + "".join(f"{n:>10}" for n in ways) +
          f"{'to direct + hop':>18}{'hop: a round trip':>20}")
    round_trip = {}
    for program in (Ping(), Redis(), Postgres(), Nginx()):
        missing = [n for n in program.needs if not tool(n)]
        if missing:
            print(f"{program.name:22} left out: {', '.join(missing)} not installed")
            continue
        rounds = contest(program, ways)
        for title, choose in ((program.name, statistics.median), ("  its best round", min)):
            r = {n: choose(v) for n, v in rounds.items()}
            round_trip.setdefault(choose, r["direct"])
            print(f"{title:22}" + "".join(f"{r[n]:10.1f}" for n in ways) +
                  f"{r['culvert'] / r['cheapest']:18.2f}" +
                  f"{r['culvert'] / (r['direct'] + round_trip[choose]):20.2f}", flush=True)
    print("\ngoal of the last two: at most 1.10")


relays.run(main)
