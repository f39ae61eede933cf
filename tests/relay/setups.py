"""Relays as several test programs want them: with one connection through it, held up for a moment,
as the daemon with its control socket, with its system calls counted."""
import contextlib
import json
import os
import signal

from harness import CULVERT, Listener, Relay, equal, eventually, path, run


def joined(listen="tcp:127.0.0.1:0", to="tcp:127.0.0.1:0", rcvbuf=0, **settings):
    """A relay with one connection through it, and both ends of that: client and server."""
    target = Listener(to, rcvbuf=rcvbuf)
    relay = Relay(listen, target.where, **settings)
    client = relay.connect()
    return relay, client, target.accept()


def stopped(pid):
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat", encoding="ascii") as f:
            if f.read().rpartition(")")[2].split()[0] != "T":
                return False
    return True


@contextlib.contextmanager
def held_up(relay):
    """What happens meanwhile, the relay finds in one turn of its loop."""
    os.kill(relay.pid, signal.SIGSTOP)
    try:
        eventually(lambda: stopped(relay.pid), "the relay stops")
        yield
    finally:
        os.kill(relay.pid, signal.SIGCONT)


class Daemon(Relay):
    """culvert run with these relay routes; `settings` stand beside them in its configuration."""

    def __init__(self, *routes, **settings):
        self.config, self.control = path("culvert.yaml"), path("control.sock")
        self.write(*routes, **settings)
        super().__init__(command=[CULVERT, "run", "--config", self.config, "--socket",
                                  self.control])

    def write(self, *routes, **settings):
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(json.dumps({**settings, "relay": [{"when": "always", **r} for r in routes]}))

    def ask(self, *what):
        code, said = run(CULVERT, *what, "--socket", self.control)
        equal(code, 0, f"{what}: {said}")
        return said

    def reload(self, *routes, **settings):
        self.write(*routes, **settings)
        self.ask("reload")

    def status(self):
        return json.loads(self.ask("status", "--json"))["relay"]


def calls_counted(stats):
    """Of the system call that faults were set for, once the relay has ended: how many calls, how
    many failed, the largest of their sizes."""
    eventually(lambda: os.path.exists(stats) and os.path.getsize(stats), "statistics")
    with open(stats, encoding="ascii") as f:
        return tuple(map(int, f.read().split()[1:]))
