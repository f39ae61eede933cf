"""What engine: auto loses to the better of splice and copy, at every size: the goal is 2 %.

Three kinds of traffic: messages (one in flight on a connection, to an echo), streams (one connection,
writes of the size) and transfers (connect, the size, close, one after another). The engines take
turns; each figure is the median of the rounds, a ratio that of each round by itself. Beside the rate
stands the relay's processor time for each message, write or transfer, which a busy machine
disturbs less.

  ROUNDS (9), DURATION (0.2: seconds of one figure), KINDS (messages,streams,transfers)
"""
import os
import random
import statistics

import relays
from relays import cpu_seconds, culvert, ends, server, stop

ROUNDS = int(os.environ.get("ROUNDS", "9"))
SECONDS = float(os.environ.get("DURATION", "0.2"))
ENGINES = ("auto", "splice", "copy")
SIZES = [1, 16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 8 << 20, 64 << 20]
# What one send takes: an echo answers whole.
MESSAGE_MOST = 16 << 10


def name_of(size):
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"


def messages(port, size):
    while True:
        r = ends("ping", port, 1, SECONDS, size)
        if r["done"]:  # on a machine that stood still there is no figure
            return r["rate"], r["done"]


def streams(port, size):
    r = ends("stream", port, size, SECONDS)
    return r["rate"], r["done"]


def transfers(port, size):
    r = ends("transfer", port, size, SECONDS)
    return r["rate"], r["done"]


def compare(kind, measure, target, sizes):
    up = {engine: culvert(engine)(target) for engine in ENGINES}
    print(f"\n{kind:12}" + "".join(f"{e + ' /s':>14}" for e in ENGINES) + f"{'auto / best':>13}" +
          "".join(f"{e + ' us CPU':>16}" for e in ENGINES) + f"{'auto / best':>13}")
    worst, chance = {}, random.Random(1)
    for size in sizes:
        rates, cpus = ({e: [] for e in ENGINES} for _ in range(2))
        for _ in range(ROUNDS):
            # Nobody always comes behind the same one.
            for engine in chance.sample(ENGINES, len(ENGINES)):
                p, port = up[engine]
                cpu = cpu_seconds(p.pid)
                rate, done = measure(port, size)
                rates[engine].append(rate)
                cpus[engine].append((cpu_seconds(p.pid) - cpu) / max(1, done) * 1e6)
        r, c = ({e: statistics.median(v[e]) for e in ENGINES} for v in (rates, cpus))
        # The better engine is that of all rounds: the better of each round would be luck's.
        fast = max(("splice", "copy"), key=r.get)
        cheap = min(("splice", "copy"), key=c.get)
        by_rate = statistics.median(a / b for a, b in zip(rates["auto"], rates[fast]))
        by_cpu = statistics.median(a / b for a, b in zip(cpus["auto"], cpus[cheap]))
        worst[size] = (by_rate, by_cpu)
        print(f"{name_of(size):12}" + "".join(f"{r[e]:14.1f}" for e in ENGINES) + f"{by_rate:13.3f}" +
              "".join(f"{c[e]:16.2f}" for e in ENGINES) + f"{by_cpu:13.3f}", flush=True)
    for p, _ in up.values():
        stop(p)
    bad = [name_of(s) for s, (rate, _) in worst.items() if rate < 0.98]
    print(f"{kind}: rate within 2 % at {len(sizes) - len(bad)} of {len(sizes)} sizes" +
          (f"; not at {', '.join(bad)}" if bad else ""))


def main():
    relays.say_where()
    kinds = os.environ.get("KINDS", "messages,streams,transfers").split(",")
    for kind, measure, mode, most in (("messages", messages, "echo", MESSAGE_MOST),
                                      ("streams", streams, "sink", SIZES[-1]),
                                      ("transfers", transfers, "sink", SIZES[-1])):
        if kind not in kinds:
            continue
        p, target = server(mode)
        compare(kind, measure, target, [s for s in SIZES if s <= most])
        stop(p)


relays.run(main)
