#!/usr/bin/env python3
"""culvert doctor tells of this machine and of ports what is so, and changes nothing."""
import argparse
import json
import os
import shutil
import subprocess
import sys

SKIPPED = 77
DEADLINE = 120  # seconds for one command: machines are slow


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


def must(*command):
    done = run(*command)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def checks(answer, subject):
    return [c for c in answer["checks"] if c["subject"] == subject]


def texts(answer, subject):
    return " | ".join(c["text"] for c in checks(answer, subject))


class Doctor:
    def __init__(self, culvert, refuse):
        self.culvert, self.refuse = culvert, refuse

    def ask(self, *ports, under=()):
        done = run(*under, self.culvert, "doctor", "--json", *ports)
        assert done.stderr == "", done.stderr
        return done.returncode, json.loads(done.stdout)

    def machine(self):
        code, answer = self.ask()
        assert code == 0 and answer["works"], answer
        assert checks(answer, "relay")[0]["status"] == "ok", answer
        for subject in ("kernel", "capabilities", "bpf(2)", "AF_XDP", "locked memory"):
            assert len(checks(answer, subject)) == 1, subject
        table = run(self.culvert, "doctor")
        assert table.returncode == 0 and "bpf(2)" in table.stdout, table

    def without_bpf(self):
        code, answer = self.ask(under=(self.refuse, "bpf", "EPERM"))
        bpf = checks(answer, "bpf(2)")[0]
        assert bpf["status"] == "fail" and "bpf(2)" in bpf["text"] and bpf["remedy"], bpf
        assert code == 0 and "relayed" in answer["verdict"], answer["verdict"]

    def no_such_port(self):
        code, answer = self.ask("nowhere0")
        assert code == 1 and not answer["works"], answer
        assert checks(answer, "nowhere0")[0]["status"] == "fail", answer

    def port(self):
        before = must("ethtool", "-k", "left"), must("ip", "-d", "link", "show", "left")
        _, answer = self.ask("left")
        assert "driver veth, MTU 1500" in texts(answer, "left"), answer
        assert "rx-gro off" in texts(answer, "left"), answer
        assert any("txvlan off" in c["remedy"] for c in checks(answer, "left")), answer
        assert "DEFAULT ROUTE" not in texts(answer, "left"), answer
        after = must("ethtool", "-k", "left"), must("ip", "-d", "link", "show", "left")
        assert before == after, "doctor changed the port"

    def port_with_xdp(self):
        must("ip", "link", "set", "left", "up")
        code, answer = self.ask("left")
        able = ("bpf(2)", "AF_XDP", "locked memory")
        build = [c for c in checks(answer, "build") if c["status"] == "fail"]
        if build or any(checks(answer, s)[0]["status"] != "ok" for s in able):
            print("   (no XDP on this machine: only the relay is expected)")
            assert code == 0 and "relayed" in answer["verdict"], answer["verdict"]
        else:
            assert "expected: engine af_xdp" in texts(answer, "left"), answer
        must("ip", "link", "set", "left", "down")

    def port_in_trouble(self):
        must("ip", "link", "set", "left", "mtu", "9000")
        _, answer = self.ask("left")
        assert any("mtu 3498" in c["remedy"] for c in checks(answer, "left")), answer
        must("ip", "link", "set", "left", "up")
        must("ip", "address", "add", "192.0.2.1/24", "dev", "left")
        must("ip", "route", "add", "default", "via", "192.0.2.2", "dev", "left")
        _, answer = self.ask("left")
        assert "CARRIES THE DEFAULT ROUTE" in texts(answer, "left"), answer

    def held(self):
        """a device that a culvert has is in order; one that another program has is not"""
        must("ip", "link", "add", "here", "type", "veth", "peer", "name", "there")
        for device in ("here", "there"):
            must("ip", "link", "set", device, "up")
        daemon = subprocess.Popen([self.culvert, "run", "here", "there"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            said = []
            for line in daemon.stderr:
                said.append(line)
                if line.rstrip().endswith("ready"):
                    break
            else:
                assert "XDP" in said[-1] or "bpf" in said[-1], said
                print("   (no XDP on this machine: nothing to hold)")
                return
            code, answer = self.ask("here", "there")
            assert code == 0 and "frames can be forwarded" in answer["verdict"], answer
            for device in ("here", "there"):
                found = checks(answer, device)
                assert not [c for c in found if c["status"] == "fail"], found
                assert not [c for c in found if "attached already" in c["text"]], found
                held = [c for c in found if f"culvert (process {daemon.pid}) has it" in c["text"]]
                assert len(held) == 1 and held[0]["status"] == "ok", found
            daemon.kill()  # no culvert's any more, though its undo file is there
            daemon.wait(DEADLINE)
            assert "has it" not in texts(self.ask("here")[1], "here")
        finally:
            daemon.kill()
            daemon.wait()
            daemon.stderr.close()
            must("ip", "link", "del", "here")

    def address_above(self):
        """addresses on a bridge and a macvlan device above a port, but not its own nor its peer's"""
        def warned(*ports):
            return [c["text"] for c in self.ask(*ports)[1]["checks"]
                    if c["status"] == "warn" and "can't be reached" in c["text"]]
        must("ip", "link", "add", "below", "type", "veth", "peer", "name", "other")
        for device in ("below", "other"):
            must("ip", "link", "set", device, "up")
        must("ip", "address", "add", "192.0.2.5/24", "dev", "below")
        must("ip", "address", "add", "192.0.2.6/24", "dev", "other")
        assert not warned("below", "other")
        made = 0
        if run("ip", "link", "add", "bridge", "type", "bridge").returncode == 0:
            made += 1
            must("ip", "link", "set", "other", "master", "bridge")
            must("ip", "link", "set", "bridge", "up")
            assert not warned("other"), "warned of a bridge without an address"
            must("ip", "address", "add", "192.0.2.7/24", "dev", "bridge")
            found = warned("other")
            assert len(found) == 1 and "192.0.2.7 is on bridge (bridge)" in found[0], found
            assert not warned("below")
        if run("ip", "link", "add", "mac", "link", "below", "type", "macvlan").returncode == 0:
            made += 1
            must("ip", "address", "add", "2001:db8::7/64", "dev", "mac")
            found = warned("below")
            assert len(found) == 1 and "2001:db8::7 is on mac (macvlan)" in found[0], found
            done = run(self.culvert, "check", "below", "left")
            if "not to be had" not in done.stdout:
                assert done.stdout.count("warning: this host's address 2001:db8::7") == 1, done
        if not made:
            print("   (neither bridges nor macvlan devices on this machine)")
        must("ip", "link", "del", "below")

    def wrong_usage(self):
        done = run(self.culvert, "doctor", "--nonsense")
        assert done.returncode == 2 and "--nonsense" in done.stderr, done


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--culvert", required=True)
    parser.add_argument("--refuse", required=True)
    args, _ = parser.parse_known_args()
    if os.geteuid() != 0:
        print("skipped: needs root for a network namespace of its own")
        return SKIPPED
    for tool in ("ip", "ethtool", "unshare"):
        if not shutil.which(tool):
            print(f"skipped: needs {tool}")
            return SKIPPED
    if "CULVERT_TEST_NAMESPACE" not in os.environ:
        if run("unshare", "--net", "--mount", "true").returncode != 0:
            print("skipped: may not make a network namespace")
            return SKIPPED
        os.environ["CULVERT_TEST_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, *sys.argv])
    must("mount", "-t", "tmpfs", "tmpfs", "/run")  # the daemon's socket and undo files
    must("ip", "link", "add", "left", "type", "veth", "peer", "name", "right")
    must("ip", "link", "set", "right", "up")
    must("ethtool", "-K", "left", "gro", "on")
    doctor = Doctor(args.culvert, args.refuse)
    for test in (doctor.machine, doctor.without_bpf, doctor.no_such_port, doctor.port,
                 doctor.port_with_xdp, doctor.port_in_trouble, doctor.held,
                 doctor.address_above, doctor.wrong_usage):
        test()
        print(f"ok: {test.__name__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
