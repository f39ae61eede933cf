"""DPDK ports as guests of the process and the machine: what they leave alone, take and give back."""
import collections
import os
import time
import urllib.request

import harness
from harness import Culvert, Machine, expect, link, main, run, say, wait_for

# Every driver that needs no other process; with packet(), all that the suite has.
DEVICES = ("dpdk:net_tap{0},iface=t{0}", "dpdk:net_memif{0},role=server,socket=/run/memif{0}.sock,"
           "socket-abstract=no", "dpdk:net_memif{0}0,role=server,socket=/run/abstract{0}",
           "dpdk:net_vhost{0},iface=/run/vhost{0}.sock", "dpdk:net_null{0}",
           "dpdk:net_ring{0}", "dpdk:net_virtio_user{0},path=/run/nobody.sock")
ROUNDS = 300 if harness.LONG else 3
HUGE = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
HUGE_PAGES = 96  # for EAL, one worker and another's file


def config(*devices, more=""):
    names = [f"x{i}" for i in range(len(devices))]
    lines = ["workers: 1", "ports:"]
    lines += [f'  - {{ name: {n}, device: "{d}"{more} }}' for n, d in zip(names, devices)]
    pairs = ", ".join(f"[{a}, {b}]" for a, b in zip(names[::2], names[1::2]))
    return "\n".join(lines) + f"\nforward:\n  patch: [{pairs}]\n"


def packet(device):
    return f"dpdk:net_af_packet_{device},iface={device}"


def threads(f):
    """name: what the kernel says of it."""
    found = {}
    for t in os.listdir(f"/proc/{f.pid}/task"):
        with open(f"/proc/{f.pid}/task/{t}/status") as s:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in s if ":\t" in line)
        found[status["Name"]] = {k: status[k] for k in (
            "SigBlk", "SigIgn", "SigCgt", "Cpus_allowed_list", "Mems_allowed_list")}
    return found


def cpu_s(f):
    """Seconds that its threads ran, and that they ran or wanted to."""
    ran = wanted = 0
    for t in os.listdir(f"/proc/{f.pid}/task"):
        with open(f"/proc/{f.pid}/task/{t}/schedstat") as s:
            run_ns, wait_ns = (int(x) for x in s.read().split()[:2])
        ran, wanted = ran + run_ns / 1e9, wanted + (run_ns + wait_ns) / 1e9
    return ran, wanted


def shares(f, seconds):
    ran, wanted = cpu_s(f)
    start = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - start
    now = cpu_s(f)
    return (now[0] - ran) / took, (now[1] - wanted) / took


def descriptors(f):
    """How many of each kind."""
    found = collections.Counter()
    for fd in os.listdir(f"/proc/{f.pid}/fd"):
        try:
            name = os.readlink(f"/proc/{f.pid}/fd/{fd}")
        except OSError:
            continue
        found[name.split("[")[0] if name.startswith("socket:") else name] += 1
    return found


def left_in_run():
    """Files and sockets, but the test's own."""
    return sorted(os.path.join(d, name) for d, _, names in os.walk("/run") for name in names
                  if not d.startswith(harness.RUN_DIR))


def attach_first(wrapper):
    """EAL starts with the first DPDK port; what it changes of threads that were there before is wrong."""
    m = Machine(addresses=True)
    f = Culvert(config("p0", "p1"), wrapper=wrapper)
    m.reachable()
    expect(not os.path.exists("/run/dpdk") and "eal-intr-thread" not in threads(f), threads(f))
    before = threads(f)
    f.ask("attach", "dpdk:net_null0", "dpdk:net_null1")
    wait_for("frames cross the new ports", lambda: f.total("dpdk:net_null1", "rx_frames") > 0)
    now = threads(f)
    expect("eal-intr-thread" in now, f"is this test blind? {now}")
    for name, was in before.items():
        expect(now[name] == was, f"thread {name}: {was} -> {now[name]}")
    expect(all(t["Cpus_allowed_list"] == before["culvert"]["Cpus_allowed_list"]
               for t in now.values()), f"DPDK's threads run elsewhere: {now}")
    expect(not os.path.exists("/run/dpdk"), "EAL leaves files")
    f.ask("detach", "dpdk:net_null0", "dpdk:net_null1")
    f.end()
    m.unchanged()


def only_when_wanted():
    """EAL starts with the first DPDK port; affinity and signals are left as they were"""
    attach_first(())


def on_one_cpu():
    """likewise where culvert may run on one CPU only, which is not EAL's first choice"""
    attach_first(("taskset", "-c", str(max(os.sched_getaffinity(0)))))


def huge_pages():
    """with huge pages: taken from the machine and given back, others' files stay"""
    def read():
        with open(HUGE) as f:
            return int(f.read())

    def write(n):
        with open(HUGE, "w") as f:
            f.write(str(n))
    m = Machine(addresses=True)
    try:
        before = read()
        write(before + HUGE_PAGES)
    except OSError as e:
        say(f"left out: {e}")
        return
    try:
        if read() < before + HUGE_PAGES:
            say("left out: this machine has no room for huge pages")
            return
        os.makedirs("/run/huge")
        run("mount", "-t", "hugetlbfs", "hugetlbfs", "/run/huge")
        with open("/run/huge/rtemap_0", "wb") as other:  # nobody holds a lock on it
            other.truncate(2 << 20)
        f = Culvert(config(packet("p0"), packet("p1")), args=("--log", "debug"))
        expect("dpdk: started with huge pages" in f.log(), f.log())
        m.reachable()
        f.end()
        expect(os.listdir("/run/huge") == ["rtemap_0"], os.listdir("/run/huge"))
        run("umount", "/run/huge")
    finally:
        write(before)
    f = Culvert(config(packet("p0"), packet("p1")), args=("--log", "debug"))
    m.reachable()
    say(next(x for x in f.log().splitlines() if "dpdk: started" in x))
    f.end()
    m.unchanged()


def idle():
    """an idle port of any driver leaves the processor alone, and a lone ping is answered soon"""
    m = Machine(addresses=True)
    one = Culvert(config(packet("p0"), "dpdk:net_vhost9,iface=/run/vhost9.sock"))
    two = Culvert(config("dpdk:net_virtio_user9,path=/run/vhost9.sock",
                         "dpdk:net_memif9,role=server"))
    three = Culvert(config("dpdk:net_memif9,role=client", packet("p1")))
    four = Culvert(config(*[x.format(i) for i in (0, 1) for x in DEVICES if "null" not in x]))
    m.reachable()
    for f in (one, two, three, four):
        wait_for("it is idle", lambda f=f: shares(f, 1)[0] < 0.1)
    replies = m.a.run("ping", "-n", "-c", 15, "-i", 0.2, "10.77.0.2").stdout
    times = sorted(float(x.split("time=")[1].split()[0]) for x in replies.splitlines()
                   if "time=" in x)
    say(f"round trips over three processes, ms: {times}")
    expect(len(times) == 15 and times[7] < 50, "answers take long")
    for f in (four, three, two, one):
        f.end()
    m.unchanged()


def busy():
    """--busy polls"""
    m = Machine()
    f = Culvert(config(packet("p0"), packet("p1"), more=", busy: yes"))
    wait_for("it polls", lambda: shares(f, 1)[1] > 0.7)
    f.end()
    m.unchanged()


def links_and_counters():
    """the link is the device's; counters of the driver are in status and metrics"""
    m = Machine(addresses=True)
    f = Culvert(config(packet("p0"), packet("p1"), "dpdk:net_tap0,iface=t0", "dpdk:net_null0") +
                'control: { http: "127.0.0.1:9464" }\n')
    m.reachable()
    wait_for("the tap is up", lambda: f.port("x2")["link"] == "up")
    for device, port in (("p1", "x1"), ("t0", "x2")):
        for state in ("down", "up"):
            run("ip", "link", "set", device, state)
            wait_for(f"{device} is {state}", lambda: f.port(port)["link"] == state)
    m.reachable()

    def told():
        """Names with values, as Prometheus reads them and as status shows them."""
        with urllib.request.urlopen("http://127.0.0.1:9464/metrics", timeout=20) as page:
            text = page.read().decode()
        return text, f.port("x0")["queues"][0]["kernel"]
    table = f.ask("status").stdout.splitlines()[2:]
    expect(table[0].startswith("PORT ") and all(
        x[table[0].index("ENGINE"):].startswith("dpdk  ") for x in table[1:5]),
        "the table's columns are awry:\n" + "\n".join(table[:5]))
    text, kernel = told()
    for name in ("rx_packets", "tx_packets"):
        expect(kernel[name] > 0, str(kernel))
        expect(f'culvert_kernel_total{{port="x0",queue="0",counter="{name}"}}' in text, text)
    for name in ("mbufs", "mbufs_in_use"):
        expect(f'culvert_kernel_level{{port="x0",queue="0",counter="{name}"}}' in text, text)
    expect("# TYPE culvert_kernel_level gauge" in text, text)
    expect('total{port="x0",queue="0",counter="mbufs' not in text, "levels go as counters")
    run("ip", "link", "set", "t0", "down")

    def dropped():
        return f.port("x3")["queues"][0]["drops"]["port_down"]
    wait_for("what net_null makes for a port without carrier is dropped", dropped)
    text, _ = told()
    expect('culvert_drops_total{port="x3",queue="0",reason="port_down"}' in text, text)
    f.end()
    m.unchanged()


def cycles():
    """ports of every driver come and go; descriptors, files and devices do not pile up"""
    m = Machine(addresses=True)
    before = left_in_run()
    f = Culvert(config(packet("p0"), packet("p1")))
    m.reachable()
    fds = []
    for i in range(ROUNDS):
        devices = [x.format(n) for n in (1, 2) for x in DEVICES]
        for device in devices:
            f.ask("attach", device)
        m.reachable()
        for device in devices:
            f.ask("detach", device)
        # The kernel takes a device away when the last who looks at it lets go.
        wait_for("the taps to go", lambda: not link("t1") and not link("t2"))
        fds.append(descriptors(f))
    expect(fds[-1] == fds[1], f"descriptors pile up: {fds}")
    m.reachable()
    f.end()
    wait_for("no file is left", lambda: left_in_run() == before or say(left_in_run()), 10, 1)
    m.unchanged()


def refused_live():
    """what can't be had while others forward says why, in one line, and they go on"""
    m = Machine(addresses=True)
    run("ip", "link", "add", "p2", "type", "veth", "peer", "name", "p3")
    f = Culvert(config(packet("p0"), packet("p1")))
    other = Culvert(config("dpdk:net_memif0,role=server,socket=/run/memif.sock,"
                           "socket-abstract=no", "dpdk:net_vhost0,iface=/run/vhost.sock"))
    m.reachable()
    for device, words in (
            ("dpdk:net_af_packet5", "needs iface="),
            ("dpdk:net_af_packet5,iface=nosuch", "no network device nosuch"),
            ("dpdk:net_af_packet5,iface=lo,framesz=none", "is no size"),
            ("dpdk:net_nosuch5", "net_nosuch5"),
            ("dpdk:nosuch", "neither a PCI address nor a virtual device"),
            ("dpdk:net_null5,nosuch=1", "net_null5: there is no argument"),
            ("dpdk:net_tap5,ifac=t5", "net_tap5: there is no argument"),
            ("dpdk:net_vhost5", "net_vhost5 needs iface="),
            ("dpdk:net_vhost5,iface=", "has no value"),
            ("dpdk:net_af_packet5,iface=p2,framesz=100", "a multiple of the page"),
            ("dpdk:net_null5,mtu=no", "is no MTU"),
            ("dpdk:net_pcap5,rx_pcap=/nosuch", "net_pcap5"),
            ("dpdk:net_virtio_user5,path=/run/v.sock,server=1", "answer nobody"),
            ("dpdk:net_memif5,role=server,socket=/run/memif.sock,socket-abstract=no",
             "listens at /run/memif.sock already"),
            ("dpdk:net_vhost5,iface=/nosuch/vhost.sock", "No such file"),
            ("dpdk:net_vhost5,iface=/run/vhost.sock", "listens at /run/vhost.sock already"),
            ("dpdk:ffff:ff:1f.7", "no PCI device ffff:ff:1f.7"),
            (packet("p0"), "attached already")):
        answer = f.ask("attach", device, check=False)
        lines = (answer.stdout + answer.stderr).strip().splitlines()
        expect(answer.returncode == 1 and len(lines) == 1 and words in lines[0] and
               "; " in lines[0], f"{device}: exit {answer.returncode}: {lines}")
        expect(len(f.status()["ports"]) == 2, "it is there all the same")
    m.reachable()
    other.end()
    f.end()
    m.unchanged()


def refused_reload():
    """a mistake in a device's arguments is told by check and by a reload, and nothing is touched"""
    m = Machine(addresses=True)
    more = ("dpdk:net_tap0,iface=t0", "dpdk:net_null0")
    f = Culvert(config(packet("p0"), packet("p1"), *more))
    m.reachable()
    tap = link("t0")["ifindex"]
    for device in ("dpdk:net_tap0,ifac=t0", "dpdk:net_tap0,iface=", "dpdk:net_tap0,mtu=none"):
        f.write(config(packet("p0"), packet("p1"), device, more[1]))
        for asked in (run(harness.OPTIONS.culvert, "check", "--config", f.config, check=False),
                      f.ask("reload", check=False)):
            said = asked.stdout + asked.stderr
            expect(asked.returncode == 1 and "net_tap0: " in said, said)
        expect(link("t0")["ifindex"] == tap, "the tap was made anew")
    f.write(config(packet("p0"), packet("p1"), "dpdk:net_nul0", more[1]))
    said = run(harness.OPTIONS.culvert, "check", "--config", f.config).stdout
    expect("whether DPDK has a driver for net_nul0" in said, said)
    m.reachable()
    f.check_law()
    f.stop()
    m.unchanged()


def ended(wrapper, *devices, code):
    """The error line of a culvert that can't start; its log has no line that is not culvert's."""
    f = Culvert(config(*devices), wrapper=wrapper, ready=False)
    f.process.wait(60)
    log = f.log()
    f.stop(expect_code=code)
    lines = log.splitlines()
    expect(all(x.startswith("culvert: ") for x in lines), f"not all is culvert's:\n{log}")
    errors = [x for x in lines if x.startswith("culvert: error: ")]
    expect(len(errors) == 1 and "; " in errors[0], log)
    return errors[0]


def not_permitted():
    """what the process may not do is told with the right it needs, or the name that is taken"""
    m = Machine()
    bare = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    told = ended(bare, "dpdk:net_tap0", "dpdk:net_null0", code=3)
    expect("Operation not permitted" in told and "CAP_NET_ADMIN" in told, told)
    told = ended((), "dpdk:net_tap0,iface=p0", "dpdk:net_null0", code=1)
    expect("called so already" in told, told)
    m.unchanged()


def no_memory():
    """an EAL that can't start says so once, in culvert's log"""
    m = Machine()
    told = ended(("prlimit", "--as=600000000"), "dpdk:net_null0", "dpdk:net_null1", code=1)
    expect("DPDK does not start: EAL: " in told, told)
    m.unchanged()


def queues():
    """fewer queues than asked for: the remedy is the device's"""
    m = Machine()
    f = Culvert(config("dpdk:net_null0", packet("p0")).replace("workers: 1", "workers: 2"))
    line = next(x for x in f.log().splitlines() if "1 of 2 workers" in x)
    expect("qpairs=N" in line and "ethtool" not in line, line)
    f.end()
    told = ended((), "dpkd:net_null0", "dpdk:net_null1", code=1)
    expect("no such sort of device" in told, told)
    m.unchanged()


if __name__ == "__main__":
    main(only_when_wanted, on_one_cpu, huge_pages, idle, busy, links_and_counters, cycles,
         refused_live, refused_reload, not_permitted, no_memory, queues)
