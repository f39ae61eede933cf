#!/usr/bin/env python3
"""Reads the #include lines of src/ and fails where a room sees what the layer rule forbids."""
import os
import re
import sys
import tempfile

# Room -> what it may see beside itself and what these see: src/README.md has the drawing.
RULE = {
    "base": [],
    "frame": ["base"],
    "fn": ["frame", "base"],
    "engine": ["frame", "base"],
    "worker": ["fn", "engine/engine.h", "frame", "base"],
    "relay": ["base"],
    "host": ["base"],
    "control": ["base", "frame", "fn", "engine", "worker", "relay", "host"],
    "cli": ["control", "base"],
    "main.c": ["cli", "base"],
}
# An engine's inside is its own: only the engines' list at the top of the room may name it.
ENGINES = {"af_xdp", "dpdk", "mem"}
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')


def breaches(src):
    """Yields `file:line: what is wrong` for each include that breaks the rule."""
    for folder, _, files in sorted(os.walk(src)):
        for name in sorted(files):
            if not name.endswith((".c", ".h")):
                continue
            path = os.path.join(folder, name)
            with open(path, encoding="utf-8") as text:
                for number, line in enumerate(text, 1):
                    found = INCLUDE.match(line)
                    why = found and wrong(src, os.path.relpath(path, src), found.group(1))
                    if why:
                        yield f"{path}:{number}: {why}"


def wrong(src, path, include):
    """Why the file at path (below src) may not include this, or None."""
    parts = path.split("/")
    room = parts[0]
    if room not in RULE:
        return f"src/{room} is no room of the layer rule (tests/layers.py)"
    target = include
    if not os.path.exists(os.path.join(src, target)):
        beside = os.path.normpath(os.path.join(os.path.dirname(path), include))
        if not os.path.exists(os.path.join(src, beside)):
            return None  # config.h, culvert/abi.h, a skeleton: not a room's
        target = beside
    into = target.split("/")
    if into[0] == room:
        return inside_engine(parts, into, include)
    for allowed in RULE[room]:
        if target == allowed or target.startswith(allowed + "/"):
            return engine_inside(into, include)
    return f'{room} may not include "{include}" (it sees: {", ".join(RULE[room]) or "nothing"})'


def inside_engine(parts, into, include):
    if into[0] != "engine" or len(into) < 3 or into[1] not in ENGINES:
        return None
    if len(parts) == 2 or parts[1] == into[1]:
        return None
    return f'engine {parts[1]} may not include another engine\'s "{include}"'


def engine_inside(into, include):
    if into[0] == "engine" and len(into) > 2:
        return f'"{include}" is an engine\'s inside: go through engine/engine.h'
    return None


def prove():
    """Shows that the check can fail: one breach of each kind, and what is allowed."""
    cases = [
        ("base/a.c", "frame/frame.h", True),
        ("frame/a.c", "base/log.h", False),
        ("fn/a.c", "engine/engine.h", True),
        ("worker/a.c", "engine/engine.h", False),
        ("worker/a.c", "engine/mem/mem.h", True),
        ("relay/a.c", "frame/frame.h", True),
        ("host/a.c", "control/plan.h", True),
        ("control/a.c", "worker/worker.h", False),
        ("control/a.c", "engine/mem/mem.h", True),
        ("cli/a.c", "worker/worker.h", True),
        ("cli/a.c", "control/plan.h", False),
        ("engine/dpdk/a.c", "engine/mem/mem.h", True),
        ("engine/dpdk/a.c", "../mem/mem.h", True),
        ("engine/mem/a.c", "engine/mem/mem.h", False),
        ("elsewhere/a.c", "base/log.h", True),
        ("base/a.c", "config.h", False),
    ]
    headers = ["base/log.h", "frame/frame.h", "engine/engine.h", "engine/mem/mem.h",
               "control/plan.h", "worker/worker.h"]
    bad = 0
    for path, include, expected in cases:
        with tempfile.TemporaryDirectory() as src:
            for file in headers + [path]:
                os.makedirs(os.path.dirname(os.path.join(src, file)), exist_ok=True)
                with open(os.path.join(src, file), "w", encoding="utf-8") as text:
                    if file == path:
                        print(f'#include <stdio.h>\n#include "{include}"', file=text)
            got = list(breaches(src))
            if bool(got) != expected or (expected and f"{path}:2:" not in got[0]):
                print(f"{path} includes {include}: expected breach {expected}, got {got}")
                bad += 1
    return bad


if __name__ == "__main__":
    if sys.argv[1:] == ["--prove"]:
        sys.exit(1 if prove() else 0)
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src")
    found = list(breaches(sys.argv[1] if len(sys.argv) > 1 else beside))
    print("\n".join(found))
    sys.exit(1 if found else 0)
