"""culvert check beside a running culvert: it says what a reload with that file does."""
import re

import harness
from harness import Culvert, Machine, expect, main, ports_config, run, say, veth, wait_for


def ask(f, config, *more):
    """What check says of that configuration, and its exit code."""
    path = f"{f.dir}/new.yaml"
    with open(path, "w") as out:
        out.write(config)
    done = run(harness.OPTIONS.culvert, "check", "--config", path, "--socket", f.socket, *more,
               check=False)
    return done.returncode, done.stdout + done.stderr


def port(said, name):
    """The lines of one port: those that follow its own are indented."""
    return re.search(rf"^port {name}: .*\n(?:    .*\n)*", said, re.M).group()


def held():
    """devices that the running culvert has are no error, and a reload keeps them"""
    m = Machine()
    f = Culvert(ports_config(m.ports))
    code, said = ask(f, ports_config(m.ports))
    expect(code == 0 and "not to be had" not in said, f"exit {code}: {said}")
    for name in m.ports:
        got = f.port(name)
        expect(f"engine af_xdp, mode {got['mode']}, 1 queue" in port(said, name), said)
        expect(f"in use by the running culvert (process {f.pid}): a reload keeps it"
               in port(said, name), said)
    expect(f"running: culvert (process {f.pid}) answers at {f.socket}" in said, said)
    expect("warning" not in said, said)
    f.write(ports_config(m.ports))
    f.ask("reload")
    expect("closed" not in f.log(), "the reload closed a port: " + f.log())
    f.end()
    code, said = ask(f, ports_config(m.ports))
    expect(code == 0 and "running" not in said, f"exit {code}: {said}")
    m.unchanged()


def changed():
    """what a reload opens anew, opens, closes and refuses; and what can't be had even then"""
    m = Machine()
    veth("p2", m.a, "a2")
    f = Culvert(ports_config(m.ports))
    other = {"wan": "p0", "new": "p2"}
    mode = harness.OPTIONS.mode
    code, said = ask(f, ports_config(other).replace("p0, mode", "p0, keep_host: false, mode"))
    expect(code == 0, f"exit {code}: {said}")
    expect("opens it anew, as its keep_host changes" in port(said, "wan"), said)
    expect(f"mode {mode}" in port(said, "wan") and f"mode {mode}" in port(said, "new"), said)
    expect("in use" not in port(said, "new"), said)
    expect("closed by a reload" in port(said, "lan"), said)
    code, said = ask(f, ports_config({"wan": "p0", "east": "p1"}))
    expect(code == 0 and "opens it anew, as its name changes" in port(said, "east"), said)
    code, said = ask(f, ports_config(m.ports, mode="zero-copy"))
    expect(code == 1 and "not to be had" in port(said, "wan"), f"exit {code}: {said}")
    expect("no zero-copy" in port(said, "wan"), said)
    code, said = ask(f, ports_config(m.ports), "--workers", "2")
    expect("warning: workers is not what it runs with" in said, said)
    f.end()
    m.unchanged()


def of_others():
    """a device that another culvert has is an error still, whoever answers"""
    m = Machine()
    veth("p2", m.a, "a2")
    veth("p3", m.b, "b3")
    one = Culvert(ports_config(m.ports))
    two = Culvert(ports_config({"wan": "p2", "lan": "p3"}))
    code, said = ask(two, ports_config({"wan": "p2", "lan": "p1"}))
    expect(code == 1 and "not to be had" in port(said, "lan"), f"exit {code}: {said}")
    expect("another XDP program" in port(said, "lan"), said)
    expect("a reload keeps it" in port(said, "wan"), said)
    two.end()
    code, said = ask(two, ports_config(m.ports))  # nobody answers there any more
    expect(code == 1 and said.count("not to be had") == 2, f"exit {code}: {said}")
    one.end()
    m.unchanged()


def without_file():
    """a culvert that was started without a file can't reload"""
    m = Machine()
    f = Culvert(args=["p0", "p1"])
    done = run(harness.OPTIONS.culvert, "check", "p0", "p1", "--socket", f.socket)
    expect(done.stdout.count("a reload keeps it") == 2, done.stdout)
    expect("without a configuration file" in done.stdout, done.stdout)
    f.end()
    m.unchanged()


def fast_path():
    """what the kernel forwards by itself: check and status agree"""
    m = Machine()
    m.a.run("ethtool", "-K", "a0", "gro", "on")  # only what goes to p0 can be redirected
    config = ports_config(m.ports, more="  fast_path: auto\n")
    f = Culvert(config)

    def agree():
        _, said = ask(f, config)
        ons = [f.port(name)["fast_path"]["on"] for name in m.ports]
        return ons == ["    fast path: " in port(said, name) for name in m.ports]
    wait_for("check and status agree", agree)
    f.end()


DPDK = """workers: 1
ports:
  - { name: wan, device: "dpdk:net_af_packet0,iface=p0" }
  - { name: lan, device: "dpdk:net_null0" }
forward:
  patch: [[wan, lan]]
"""


def dpdk():
    """a DPDK device on a network device, and one without"""
    if "dpdk" not in run(harness.OPTIONS.culvert, "version").stdout:
        say("built without DPDK")
        return
    m = Machine()
    f = Culvert(DPDK)
    code, said = ask(f, DPDK)
    expect(code == 0 and said.count("a reload keeps it") == 2, f"exit {code}: {said}")
    expect("engine dpdk, mode dpdk" in port(said, "wan"), said)
    code, said = ask(f, DPDK.replace("dpdk:net_af_packet0,iface=p0", "p0"))
    expect("opens it anew, as its device changes" in port(said, "wan"), said)
    expect("engine af_xdp, mode copy" in port(said, "wan"), said)
    f.end()
    f = Culvert(ports_config(m.ports))
    code, said = ask(f, DPDK)
    expect("engine dpdk, mode dpdk" in port(said, "wan"), said)
    expect("opens it anew, as its device changes" in port(said, "wan"), said)
    f.end()
    m.unchanged()


main(held, changed, of_others, without_file, fast_path, dpdk)
