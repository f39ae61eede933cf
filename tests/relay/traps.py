"""What the tests of the 27 traps have in common that relays of the field fell into. They are in
test_traps_*.py by subject; a trap's number is in its test's name. Each must hold for every engine
of movement that the trap concerns."""
import fcntl
import struct
import termios
import time

from harness import ENDS, SLOW, Listener, Process, Relay, check, connect, eventually, load
from setups import joined

ENGINES = ("splice", "copy", "auto")


def block(size, seed=7):
    """Bytes in which no piece looks like another."""
    numbers = range(seed, seed + 2654435761 * (size // 8 + 1), 2654435761)
    return b"".join(n.to_bytes(8, "little") for n in numbers)[:size]


def fill(s, limit=64 << 20):
    """Sends until nothing moves any more; returns how much went in."""
    s.setblocking(False)
    data, sent, still = block(1 << 16), 0, time.monotonic()
    while time.monotonic() - still < 0.25 and sent < limit:
        try:
            sent += s.send(data[sent % len(data):])
            still = time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)
    s.settimeout(30 * SLOW)
    return sent


def unacknowledged(s):
    """Bytes that were sent and that the other end's kernel has not acknowledged yet."""
    return struct.unpack("i", fcntl.ioctl(s, termios.TIOCOUTQ, bytes(4)))[0]


def check_filled(data, what):
    """The bytes are those of fill."""
    whole = block(1 << 16)
    check(data == (whole * (len(data) // len(whole) + 1))[:len(data)], f"{what}: bytes differ")


def stalled(engine):
    """A relay whose target reads nothing while the client has filled everything."""
    relay, client, server = joined(engine=engine, rcvbuf=4096)
    return relay, client, server, fill(client)


def stalled_both_ways(engine):
    """Likewise, and then with the ends' parts changed: relay, who sends, who reads nothing, how
    much."""
    yield stalled(engine)
    target = Listener()
    relay = Relay("tcp:127.0.0.1:0", target.where, engine=engine)
    client = connect(relay.where, rcvbuf=4096)
    server = target.accept()
    yield relay, server, client, fill(server)


def load_in_segments(relay, most="16M"):
    """From single bytes to as much at a time as goes: each way, compared byte by byte."""
    for chunk, size in ((1, "20k"), (100, "1M"), (1448, "4M"), (0, most)):
        load(relay.where, up=size, down=size, chunk=chunk, server_chunk=chunk)


def sink():
    """Where a program listens that takes all and says nothing."""
    p = Process([ENDS, "sink", "tcp:127.0.0.1:0"])
    eventually(lambda: p.out, "sink listens")
    return p.out[0].split()[1]
