"""Bad input: the exit code, and one line that says what is wrong and what would help."""
import os
import re
import time

from harness import (CULVERT, Listener, Relay, Skip, check, connect, equal, main, path, run,
                     try_connection)


def refused(*args, code, says, setup=None):
    got, text = run(CULVERT, "relay", *args, **(setup or {}))
    equal(got, code, f"exit code of {args}: {text!r}")
    check(text.strip(), f"{args}: it says something")
    check(re.search(says, text, re.I), f"{args}: {text!r} does not match {says!r}")
    errors = [line for line in text.splitlines() if "error" in line]
    check(len(errors) <= 1, f"{args}: one error line, got {errors}")
    return text


TO = "tcp:127.0.0.1:9"


def test_wrong_usage_is_exit_2():
    for args, says in (
            ([], "listen|usage|endpoint"),
            (["tcp:127.0.0.1:0"], "target|to|usage"),
            (["tcp:127.0.0.1", TO], "port|tcp:"),
            (["127.0.0.1:80", TO], "tcp:"),
            (["tcp:127.0.0.1:99999", TO], "port|99999"),
            (["tcp:127.0.0.1:x", TO], "port|number|x"),
            (["gopher:127.0.0.1:70", TO], "gopher|tcp:"),
            (["unix:", TO], "path|unix"),
            (["tcp:127.0.0.1:0", "udp:127.0.0.1:53"], "udp|stream"),
            (["udp:127.0.0.1:0", TO], "udp"),
            (["tcp:127.0.0.1:0", "tcp:127.0.0.1:0"], "port"),
            (["udp:127.0.0.1:0", "udp:127.0.0.1:0"], "port"),
            (["tcp:127.0.0.1:0", "tcp:*:80"], "every address"),
            (["udp:127.0.0.1:0", "udp:127.0.0.1:9", "--set", "connection_rate=1M/s"],
             "connection_rate.* rate"),
            (["tcp:127.0.0.1:0", TO, "--set", "source=::1"], "source.*IP version"),
            (["udp:127.0.0.1:0", "udp:[::1]:9", "--set", "source=127.0.0.1"], "source.*IP version"),
            (["tcp:127.0.0.1:0", TO, "--set", "nonsense=1"], "nonsense"),
            (["tcp:127.0.0.1:0", TO, "--set", "engine"], "KEY=VALUE|engine"),
            (["tcp:127.0.0.1:0", TO, "--set", "engine=warp"], "auto|splice"),
            (["tcp:127.0.0.1:0", TO, "--set", "idle_timeout=soon"], "duration|idle_timeout"),
            (["tcp:127.0.0.1:0", TO, "--set", "rate=fast"], "rate"),
            (["tcp:127.0.0.1:0", TO, "--set", "allow=10.0.0.0/99"], "allow|network"),
            (["tcp:127.0.0.1:0", TO, "--set", "nodelay=perhaps"], "nodelay|yes"),
            (["tcp:127.0.0.1:0", TO, "--set", "proxy_accept=yes"], "proxy_trust"),
            (["tcp:127.0.0.1:0", TO + " weight=0"], "weight"),
            (["tcp:127.0.0.1:0", TO, "--workers", "0"], "workers"),
            (["tcp:127.0.0.1:0", TO, "--workers", "many"], "workers"),
            (["--nonsense"], "nonsense"),
            (["tcp:127.0.0.1:0", TO, "--set", "engine=of\ntwo lines"], r"of\?two lines"),
    ):
        refused(*args, code=2, says=says)


def test_a_port_in_use_names_its_holder():
    holder = Listener()
    text = refused(holder.where, TO, code=1, says=r"in use")
    check(str(holder.port) in text, f"the port: {text!r}")
    if os.geteuid() == 0:
        check(str(os.getpid()) in text or "python" in text, f"who holds it: {text!r}")


def test_a_unix_socket_in_use():
    holder = Listener("unix:" + path("held"))
    refused(holder.where, TO, code=1, says=r"in use|listen")
    # And it was not taken away from who holds it.
    s = connect(holder.where)
    holder.accept()
    s.close()


def test_an_address_of_another_machine():
    refused("tcp:192.0.2.1:8080", TO, code=1, says=r"192\.0\.2\.1")


def test_a_missing_folder():
    refused("unix:/nonexistent/folder/socket", TO, code=1, says=r"/nonexistent")


def test_a_file_that_is_no_socket():
    name = path("plain")
    with open(name, "w", encoding="ascii") as f:
        f.write("precious")
    refused("unix:" + name, TO, code=1, says=r"plain")
    with open(name, encoding="ascii") as f:
        equal(f.read(), "precious", "the file is as it was")


def test_a_privileged_port_is_exit_3():
    if os.geteuid():
        raise Skip("only root can become someone else")
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as f:
        start = int(f.read())
    if start <= 81:
        raise Skip("every port is free for all here")

    def nobody():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    refused("tcp:127.0.0.1:81", TO, code=3, says=r"CAP_NET_BIND_SERVICE|ip_unprivileged_port_start",
            setup={"preexec_fn": nobody})


def test_transparent_without_the_right_is_exit_3_or_told():
    if os.geteuid():
        raise Skip("only root can become someone else")
    target = Listener()
    relay = Relay("tcp:127.0.0.1:0", target.where, uid=65534, transparent="yes", ready=False)
    end = time.monotonic() + 5
    while time.monotonic() < end and relay.p.poll() is None and not relay.logged("ready"):
        time.sleep(0.01)
    if relay.p.poll() is None:
        try_connection(relay.where)
        relay.p.terminate()
        relay.wait()
    else:
        equal(relay.wait(), 3, f"exit code: {relay.err}")
    check(relay.logged(r"CAP_NET_ADMIN"), f"the capability is named: {relay.err}")


def test_a_descriptor_that_is_no_listener():
    for number in ("250", "2"):
        refused("fd:" + number, TO, code=1, says=r"fd:|descriptor|" + number)


def test_options_that_the_system_refuses():
    """At the start, with the route and what helps; not at the first connection or datagram."""
    for ends, setting, says in (
            (("tcp:127.0.0.1:0", TO), "interface=nowhere0", "route 1: .*nowhere0.*ip link"),
            (("udp:127.0.0.1:0", "udp:127.0.0.1:9"), "interface=nowhere0",
             "route 1: .*nowhere0.*ip link"),
            (("tcp:127.0.0.1:0", TO), "congestion=none_such", "route 1: .*none_such.*sysctl"),
            (("udp:127.0.0.1:0", "udp:127.0.0.1:9"), "source=192.0.2.1", "route 1: .*address")):
        refused(*ends, "--set", setting, code=1, says=says)
    if os.path.exists("/proc/sys/net/mptcp/enabled"):
        code, text = run("timeout", "5", CULVERT, "relay", "tcp:127.0.0.1:0", TO,
                         "--set", "mptcp=yes", "--set", "user_timeout=5s")
        check(code == 124 or re.search("route 1: user_timeout.*mptcp.*remove", text), text)


def test_an_access_log_that_cannot_be_written():
    refused("tcp:127.0.0.1:0", TO, "--set", "access_log=/nonexistent/folder/log", code=1,
            says="/nonexistent/folder/log")


def test_a_name_that_does_not_resolve():
    """A target may come up later: its name does not keep the relay from starting."""
    relay = Relay("tcp:127.0.0.1:0", "tcp:nonesuch.invalid:80", connect_timeout="2s")
    try_connection(relay.where)
    relay.stop()


def test_help():
    code, text = run(CULVERT, "relay", "--help")
    equal(code, 0, f"exit code: {text!r}")
    for word in ("--set", "--workers", "tcp:"):
        check(word in text, f"{word} in {text!r}")


main()
