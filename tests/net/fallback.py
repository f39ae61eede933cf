"""Where XDP can't be had, routes run and the log says why; what asks for XDP gets an error."""
import socket
import threading

from harness import Culvert, Machine, expect, main, run, say, settings, wait_for
import harness

DATA = bytes(range(256)) * 4096


def refused():
    """ways to be refused: (name, command before culvert)"""
    refuse = harness.OPTIONS.refuse
    return (
        ("bpf(2) EPERM", [refuse, "bpf", "EPERM"]),
        ("bpf(2) ENOSYS", [refuse, "bpf", "ENOSYS"]),
        ("no AF_XDP sockets", [refuse, "af_xdp", "EAFNOSUPPORT"]),
        ("AF_XDP sockets forbidden", [refuse, "af_xdp", "EPERM"]),
        ("no CAP_BPF, CAP_SYS_ADMIN", ["setpriv", "--bounding-set", "-bpf,-sys_admin,-perfmon"]),
        ("no CAP_NET_ADMIN", ["setpriv", "--bounding-set", "-net_admin,-sys_admin"]),
        ("no CAP_NET_RAW", ["setpriv", "--bounding-set", "-net_raw"]),
    )


def serve(host):
    """A server on a host that sends everything back; its port."""
    listener = host.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("", 0))
    listener.listen(8)

    def loop():
        while True:
            try:
                s, _ = listener.accept()
            except OSError:
                return
            with s:
                s.settimeout(60)
                while chunk := s.recv(65536):
                    s.sendall(chunk)
    threading.Thread(target=loop, daemon=True).start()
    return listener.getsockname()[1]


def echo(host, address):
    s = host.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.settimeout(60)
    s.connect(address)
    sender = threading.Thread(target=lambda: (s.sendall(DATA), s.shutdown(socket.SHUT_WR)))
    sender.start()
    got = b""
    while chunk := s.recv(65536):
        got += chunk
    sender.join()
    s.close()
    expect(got == DATA, f"relayed {len(got)} bytes of {len(DATA)}")


def machine():
    m = Machine(addresses=False)
    run("ip", "addr", "add", "10.78.1.1/24", "dev", "p0")
    run("ip", "addr", "add", "10.78.2.1/24", "dev", "p1")
    m.a.run("ip", "addr", "add", "10.78.1.2/24", "dev", "a0")
    m.b.run("ip", "addr", "add", "10.78.2.2/24", "dev", "b0")
    m.before = {p: settings(p) for p in m.ports.values()}
    return m


def free_port():
    with socket.create_server(("10.78.1.1", 0)) as s:
        return s.getsockname()[1]


def config(listen, to, engine="auto", mode="auto", routes=True):
    text = f"""engine: {engine}
ports:
  - {{ name: wan, device: p0, mode: {mode} }}
  - {{ name: lan, device: p1, mode: {mode} }}
forward:
  patch: [[wan, lan]]
"""
    if routes:
        text += f"""relay:
  - {{ name: web, listen: "tcp:10.78.1.1:{listen}", to: ["tcp:10.78.2.2:{to}"] }}
"""
    return text


def relays():
    """each way to be without XDP: the routes run, the log says why, once"""
    m = machine()
    to = serve(m.b)
    for name, wrapper in refused():
        listen = free_port()
        c = Culvert(config(listen, to), wrapper=wrapper)
        echo(m.a, ("10.78.1.1", listen))
        status = c.status()
        expect(status["engine"] == "relay" and status["fallback"], f"{name}: {status}")
        say(f"{name}: {status['fallback']}")
        expect(status["relay"][0]["running"], f"{name}: {status['relay']}")
        said = [x for x in c.log().splitlines() if "XDP" in x or "bpf" in x]
        expect(said, f"{name}: the log does not say why:\n{c.log()}")
        c.write(config(listen, to).replace("mode: auto", "mode: auto, busy: true"))
        answer = c.ask("reload").stdout
        expect("reloaded; ports are not opened" in answer and "restart" in answer, answer)
        echo(m.a, ("10.78.1.1", listen))
        c.stop()
        m.unchanged()


def without_routes():
    """no routes: an error that says what to configure, exit code 1 or 3"""
    m = machine()
    for name, wrapper in refused():
        c = Culvert(config(0, 0, routes=False), wrapper=wrapper, ready=False)
        code = ends(c)
        log = c.log()
        expect(code in (1, 3) and "error" in log, f"{name}: exit {code}:\n{log}")
        expect("relay" in log, f"{name}: the log does not say that a route would help:\n{log}")
        m.unchanged()


def never():
    """engine: af_xdp never falls back"""
    m = machine()
    for name, wrapper in refused()[:3]:
        for text, args in ((config(free_port(), 9, engine="af_xdp"), ()),
                           (config(free_port(), 9), ("--engine", "af_xdp"))):
            c = Culvert(text, args, wrapper=wrapper, ready=False)
            code = ends(c)
            expect(code in (1, 3) and "error" in c.log(), f"{name}: exit {code}:\n{c.log()}")
            m.unchanged()


def ends(c):
    wait_for("culvert ends", lambda: c.process.poll() is not None)
    return c.stop(expect_code=None)


def not_needed():
    """with XDP, fallback routes do not listen"""
    m = machine()
    listen = free_port()
    c = Culvert(config(listen, 9))
    s = m.a.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.settimeout(30)
    try:
        s.connect(("10.78.1.1", listen))
        raise harness.Failure("the fallback route listens beside XDP")
    except ConnectionRefusedError:
        pass
    status = c.status()
    expect(status["engine"] == "af_xdp" and not status["fallback"], str(status))
    answer = c.ask("reload").stdout
    expect(answer.strip() == "reloaded", answer)
    c.end()
    m.unchanged()


main(relays, without_routes, never, not_needed)
