"""The relays that the benchmarks set side by side, one thread each, and the ends around them."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "relay"))
from harness import isolate  # noqa: E402  pylint: disable=wrong-import-position

HERE = os.path.dirname(os.path.abspath(__file__))
CULVERT, ENDS = os.environ["CULVERT"], os.environ["ENDS"]
REFLECT = os.environ.get("REFLECT")  # not built where BPF programs can't be

TRIES = 3  # of free ends

folder = tempfile.mkdtemp(prefix="culvert-bench-")
running = []
reflectors = []


def start(argv, **more):
    more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    p = subprocess.Popen(argv, stdin=subprocess.PIPE, text=True, **more)
    running.append(p)
    return p


def stop(p):
    """Ends a process of ours: gently first, for some write their sums at the end."""
    for stream in (p.stdin,):
        try:
            stream.close()
        except OSError:
            pass
    if p.poll() is None:
        p.terminate()
        try:
            p.wait(10)
        except subprocess.TimeoutExpired:
            p.kill()
    p.wait()
    for stream in (p.stdout, p.stderr):
        if stream:
            stream.close()
    if p in running:
        running.remove(p)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until_listening(port, p):
    end = time.monotonic() + 20
    while time.monotonic() < end and p.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"{p.args[0]} does not listen on port {port}: exit {p.poll()}")


def config(name, text):
    where = os.path.join(folder, name)
    with open(where, "w", encoding="ascii") as f:
        f.write(text)
    return where


def culvert(engine):
    def run(target, env=None):
        p = start([CULVERT, "relay", "tcp:127.0.0.1:0", f"tcp:127.0.0.1:{target}", "--set",
                   f"engine={engine}"], env=dict(os.environ, **(env or {})))
        port = None
        for line in p.stderr:
            found = re.search(r"listening on tcp:127.0.0.1:(\d+)", line)
            port = int(found[1]) if found else port
            if "ready" in line:
                return p, port
        raise SystemExit("culvert does not start")
    return run


def haproxy(name, options):
    """One thread, and the handshake's end in the same segment as the first bytes, as culvert has."""
    binary = shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")

    def run(target):
        port = free_port()
        conf = config(name, f"""global
 nbthread 1
 maxconn 6000
defaults
 mode tcp
 option tcp-smart-connect
 timeout connect 10s
 timeout client 1h
 timeout server 1h
{options}
listen l
 bind 127.0.0.1:{port} backlog 4096
 server s 127.0.0.1:{target}
""")
        p = start([binary, "-q", "-db", "-f", conf])
        until_listening(port, p)
        return p, port
    return run if binary else None


def nginx():
    binary = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    if not binary or not os.path.exists(module):
        return None

    def run(target):
        port = free_port()
        conf = config("nginx", f"""load_module {module};
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log crit;
worker_rlimit_nofile 20000;
events {{ worker_connections 16000; }}
stream {{ server {{ listen 127.0.0.1:{port} backlog=4096; proxy_pass 127.0.0.1:{target};
 proxy_timeout 1h; }} }}
""")
        p = start([binary, "-e", folder + "/nginx.log", "-c", conf])
        until_listening(port, p)
        return p, port
    return run


def go_build(source):
    go = shutil.which("go")
    if not go:
        return None
    out = os.path.join(folder, os.path.splitext(source)[0])
    # One file and the standard library: no module and no network is needed.
    env = dict(os.environ, GO111MODULE="off", GOCACHE=folder + "/go-cache", GOPATH=folder + "/go",
               CGO_ENABLED="0")
    p = subprocess.run([go, "build", "-o", out, os.path.join(HERE, source)], env=env, check=False,
                       capture_output=True, text=True)
    if p.returncode:
        print(f"go build {source}: {p.stderr}")
        return None
    return out


def go_proxy():
    binary = go_build("go_proxy.go")

    def run(target):
        port = free_port()
        p = start([binary, f"127.0.0.1:{port}", f"127.0.0.1:{target}"],
                  env=dict(os.environ, GOMAXPROCS="1"))
        until_listening(port, p)
        return p, port
    return run if binary else None


def cpu_seconds(pid):
    """Time on a processor, of all its threads, in the scheduler's nanoseconds where it can."""
    total = 0.0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
                total += int(f.read().split()[0]) / 1e9
        except OSError:
            with open(f"/proc/{pid}/task/{task}/stat", encoding="ascii") as f:
                fields = f.read().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def ends(mode, port, *args):
    """Runs one client of ends; its figures."""
    p = subprocess.run([ENDS, mode, f"tcp:127.0.0.1:{port}", *map(str, args)], capture_output=True,
                       text=True, check=False, timeout=300)
    if not p.stdout:
        raise SystemExit(f"ends {mode}: {p.stderr}")
    got = json.loads(p.stdout)
    if got.get("failed"):
        print(f"ends {mode}: {got['failed']} failed")
    return got


def reflected(mode, port, *args):
    """What ends() tells, with the free ends that are up."""
    p = reflectors[-1]
    for _ in range(TRIES):
        p.stdin.write(" ".join(map(str, (mode, port, *args))) + "\n")
        p.stdin.flush()
        line = p.stdout.readline()
        if not line:
            raise SystemExit(f"reflect: {p.stderr.read()}")
        got = json.loads(line)
        if not got["failed"] and got["done"]:
            return got
        print(f"free ends: {got['failed']} of port {port} failed; once more")
    raise SystemExit("free ends: no round without failures")


def reflector():
    """Free ends, a server as those of ends; None where they can't be had."""
    if not REFLECT:
        print("free ends: left out, built without BPF")
        return None, None
    p = start([REFLECT])
    line = p.stdout.readline()
    if not line:
        print(f"free ends: left out, {p.stderr.read().strip()}")
        stop(p)
        return None, None
    reflectors.append(p)
    return p, int(line.rsplit(":", 1)[1])


def server(mode):
    p = start([ENDS, mode, "tcp:127.0.0.1:0"])
    return p, int(p.stdout.readline().rsplit(":", 1)[1])


def say_where():
    """Into a namespace of its own, and a line of what the figures were measured on."""
    print(f"namespace of its own: {'yes' if isolate(True) else 'no'}; {os.cpu_count()} processors, "
          f"Linux {os.uname().release}, load {os.getloadavg()[0]:.1f}", flush=True)


def run(main):
    """Runs a benchmark; whatever becomes of it, nothing of it stays."""
    # A time limit ends us by SIGTERM: what we started ends too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        main()
    finally:
        for process in list(running):
            stop(process)
        shutil.rmtree(folder, ignore_errors=True)
