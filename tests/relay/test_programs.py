"""Real programs through the relay, unmodified; those that are not installed are skipped."""
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
import threading

from harness import (Listener, Process, Relay, Skip, check, connect, equal, eventually, keep, main,
                     path, receive_all, run)


def need(*names):
    got = []
    for name in names:
        found = shutil.which(name) or shutil.which("/usr/sbin/" + name)
        if not found:
            raise Skip(f"{name} is not installed")
        got.append(found)
    return got


def free_port():
    """A port that was free a moment ago: in a namespace of our own nobody else takes it."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listens(port):
    def probe():
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False

    eventually(probe, f"port {port} listens", 30)


def test_iperf3():
    (iperf3,) = need("iperf3")
    port = free_port()
    server = Process([iperf3, "-s", "-p", str(port), "--forceflush"])
    # A connection to see whether it listens would be taken for a test's.
    eventually(lambda: any("listening" in line for line in server.out), "iperf3 listens", 30)
    relay = Relay("tcp:127.0.0.1:0", f"tcp:127.0.0.1:{port}")
    for more in ([], ["-R"], ["-P", "4"], ["--bidir"]):
        def attempt(more=more):
            # iperf3's server takes one test at a time, and says "busy" to early comers.
            p = subprocess.run([iperf3, "-c", "127.0.0.1", "-p", str(relay.port), "-t", "1", "-J",
                                *more], capture_output=True, text=True, check=False, timeout=50)
            got = json.loads(p.stdout or "{}")
            if "error" in got and "busy" not in got["error"]:
                raise AssertionError(f"iperf3 {more}: {got['error']}")
            return got if "end" in got and "error" not in got else None

        got = eventually(attempt, f"iperf3 {more} runs", 30)
        check(got["end"]["sum_received"]["bytes"] > 1 << 20, f"iperf3 {more} moved something")
    relay.stop()


def test_redis_benchmark():
    server, bench = need("redis-server", "redis-benchmark")
    port = free_port()
    Process([server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
             "--dir", path(".")])
    listens(port)
    relay = Relay("tcp:127.0.0.1:0", f"tcp:127.0.0.1:{port}")
    code, text = run(bench, "-h", "127.0.0.1", "-p", relay.port, "-n", "20000", "-c", "50", "-t",
                     "get,set,lrange_100", "-q", seconds=50)
    check(code == 0 and "GET" in text and "rror" not in text, text)
    relay.stop()


def test_pgbench():
    (pgbench,) = need("pgbench")
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    if not folders:
        raise Skip("the PostgreSQL server is not installed")
    initdb, postgres = folders[-1] + "/initdb", folders[-1] + "/postgres"
    uid = None
    if os.geteuid() == 0:
        import pwd
        try:
            uid = pwd.getpwnam("postgres").pw_uid
        except KeyError:
            raise Skip("PostgreSQL does not run as root, and there is no user postgres") from None
    become = (lambda: (os.setgroups([]), os.setgid(65534), os.setuid(uid))) if uid else None
    data = path("pg")
    os.mkdir(data)
    if uid:
        os.chown(data, uid, 65534)
    os.chmod(data, 0o700)
    code, text = run(initdb, "-D", data, "-U", "bench", "-A", "trust", "--no-sync", seconds=50,
                     preexec_fn=become, cwd="/")
    equal(code, 0, text)
    port = free_port()
    # Its shared memory goes with the folder, however it ends: in /dev/shm it would stay.
    Process([postgres, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F",
             "-c", "dynamic_shared_memory_type=mmap"], preexec_fn=become, cwd="/")
    listens(port)
    relay = Relay("tcp:127.0.0.1:0", f"tcp:127.0.0.1:{port}")
    common = ["-h", "127.0.0.1", "-p", relay.port, "-U", "bench", "postgres"]
    code, text = run(pgbench, "-i", "-s", "1", "-q", *common, seconds=50)
    equal(code, 0, text)
    code, text = run(pgbench, "-c", "8", "-T", "2", *common, seconds=50)
    check(code == 0 and re.search(r"tps = [1-9]", text), text)
    # A connection for each transaction.
    code, text = run(pgbench, "-c", "4", "-T", "1", "-C", "-S", *common, seconds=50)
    check(code == 0 and re.search(r"tps = [1-9]", text) and re.search(r"failed( transactions)?: 0 ", text), text)
    relay.stop()


def nginx_conf(port, folder):
    return f"""
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
 fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
 server {{ listen 127.0.0.1:{port}; root {folder}; location = /ok {{ return 200 "fine\\n"; }} }} }}
"""


def web():
    (nginx,) = need("nginx")
    port, folder = free_port(), path("web")
    os.mkdir(folder)
    with open(folder + "/conf", "w", encoding="ascii") as f:
        f.write(nginx_conf(port, folder))
    with open(folder + "/large", "wb") as f:
        f.write(os.urandom(1 << 20) * 20)
    Process([nginx, "-e", folder + "/error.log", "-c", folder + "/conf"])
    listens(port)
    return port, folder


def test_nginx_and_its_clients():
    """Large and small answers over connections that stay and that close."""
    import http.client
    port, folder = web()
    relay = Relay("tcp:127.0.0.1:0", f"tcp:127.0.0.1:{port}")
    with open(folder + "/large", "rb") as f:
        want = hashlib.sha256(f.read()).digest()
    c = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=30)
    for turn in range(3):
        c.request("GET", "/large")
        equal(hashlib.sha256(c.getresponse().read()).digest(), want, f"large file, turn {turn}")
        for _ in range(50):
            c.request("GET", "/ok")
            equal(c.getresponse().read(), b"fine\n", "small answer")
    c.close()
    for _ in range(100):
        s = connect(relay.where)
        s.sendall(b"GET /ok HTTP/1.0\r\n\r\n")
        check(receive_all(s).endswith(b"fine\n"), "a connection each")
        s.close()
    relay.stop()


def test_wrk():
    (wrk,) = need("wrk")
    port, _ = web()
    relay = Relay("tcp:127.0.0.1:0", f"tcp:127.0.0.1:{port}")
    code, text = run(wrk, "-t", "1", "-c", "50", "-d", "3", f"http://127.0.0.1:{relay.port}/ok",
                     seconds=50)
    check(code == 0 and "Socket errors" not in text and "Non-2xx" not in text, text)
    relay.stop()


def test_many_small_files():
    """A tree through tar, as scp or rsync would send it."""
    source, target = path("source"), path("target")
    os.mkdir(source)
    os.mkdir(target)
    names = {}
    for i in range(1500):
        data = os.urandom(i * 7 % 5000)
        names[f"f{i}"] = hashlib.sha256(data).digest()
        with open(f"{source}/f{i}", "wb") as f:
            f.write(data)
    done = threading.Event()

    def unpack(c):
        with c.makefile("rb") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            tar.extractall(target)
            while stream.read(1 << 16):
                pass
        done.set()

    sink = Listener(handler=unpack)
    relay = Relay("tcp:127.0.0.1:0", sink.where)
    s = keep(connect(relay.where))
    with s.makefile("wb") as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
        tar.add(source, arcname=".")
    s.shutdown(socket.SHUT_WR)
    receive_all(s)
    s.close()
    check(done.wait(30), "unpacked")
    for name, want in names.items():
        with open(f"{target}/{name}", "rb") as f:
            equal(hashlib.sha256(f.read()).digest(), want, name)
    relay.stop()


main()
