#!/usr/bin/env python3
"""Ctrl-C in the middle of deploy/try: it says so, reports no failure, and leaves nothing.

  test_try.py SOURCE_ROOT CULVERT
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PATIENCE = 120  # seconds for what takes one on an idle machine
SKIPPED = 77


def skip(reason):
    print("skipped:", reason)
    sys.exit(SKIPPED)


def below(pid):
    """Every process that descends from pid."""
    children = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                parent = int(stat.read().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        more = children.get(todo.pop(), [])
        found += more
        todo += more
    return found


def runs(pid, word):
    """Is one of its arguments this?"""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as line:
            return word.encode() in line.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(what, condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"{what}: not within {PATIENCE} s")
        time.sleep(0.02)


def furnish(source, culvert, root):
    """A tree in which nothing has to be installed or built; tests/run may be locked by a run."""
    for folder in ("deploy", "tests", "build/src", "bin", "tmp"):
        os.makedirs(f"{root}/{folder}")
    for file in ("try", "try.py"):
        shutil.copy(f"{source}/deploy/{file}", f"{root}/deploy/{file}")
    os.symlink(culvert, f"{root}/build/src/culvert")
    files = {"deploy/packages": "packages_build=() packages_traffic=()\npackages_install() { :; }\n",
             "tests/run": "", "build/build.ninja": "", "bin/ninja": "#!/bin/sh\n"}
    for file, text in files.items():
        with open(f"{root}/{file}", "w", encoding="utf-8") as out:
            out.write(text)
    os.chmod(f"{root}/bin/ninja", 0o755)


def main():
    source, culvert = sys.argv[1], os.path.abspath(sys.argv[2])
    if os.geteuid() != 0:
        skip("needs root: network namespaces")
    if not shutil.which("iperf3"):
        skip("needs iperf3")
    if subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"],
                      check=False).returncode != 0:
        skip("namespaces are not permitted here")
    with tempfile.TemporaryDirectory() as root, open(f"{root}/output", "w+b") as output:
        furnish(source, culvert, root)
        # As a terminal does: the signal goes to the whole group.
        process = subprocess.Popen([f"{root}/deploy/try"], stdout=output, stderr=output,
                                   stdin=subprocess.DEVNULL, start_new_session=True,
                                   env={**os.environ, "PATH": f"{root}/bin:{os.environ['PATH']}",
                                        "TMPDIR": f"{root}/tmp"})
        try:
            wait_for("bulk traffic", lambda: process.poll() is not None or any(
                runs(pid, "iperf3") and runs(pid, "-J") for pid in below(process.pid)))
            inside = below(process.pid)
            os.killpg(process.pid, signal.SIGINT)
            code = process.wait(PATIENCE)
            wait_for("its processes end",
                     lambda: not any(os.path.exists(f"/proc/{pid}") for pid in inside))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
        output.seek(0)
        said = output.read().decode(errors="replace")
        print(said)
        left = os.listdir(f"{root}/tmp")
    if code != 130 or "interrupted" not in said.splitlines()[-1]:
        sys.exit(f"exit {code}, and the last line is not that it was interrupted")
    if "NOT AS IT SHOULD BE" in said or "Traceback" in said:
        sys.exit("it reports failures of what was cut short")
    if left:
        sys.exit(f"left: {left}")


main()
