#!/usr/bin/env python3
"""The man pages name every command of the binary and every key of the configuration, and no other.

  test_manual.py SOURCE_ROOT CULVERT
"""
import re
import subprocess
import sys

root, culvert = sys.argv[1:]
bad = []


def text(path):
    with open(f"{root}/{path}", encoding="utf-8") as file:
        return file.read()


def compare(what, manual, program):
    if not program:
        bad.append(f"{what}: the program shows none")
    for name in sorted(program - manual):
        bad.append(f"{what} {name} is not in the manual")
    for name in sorted(manual - program):
        bad.append(f"{what} {name} is in the manual only")


usage = subprocess.run([culvert, "--help"], capture_output=True, text=True, check=True).stdout
page = text("deploy/man/culvert.1.scd")
section = page.split("# COMMANDS")[1].split("\n# ")[0]
compare("command", set(re.findall(r"^\*([a-z]+)\*$", section, re.M)),
        set(re.findall(r"^  culvert ([a-z]+)", usage, re.M)))
section = page.split("# OPTIONS OF RUN")[1].split("\n# ")[0]
run = re.search(r"^  culvert run (.*)$", usage, re.M).group(1)
compare("option of run", set(re.findall(r"^\*--([a-z-]+)\*", section, re.M)),
        set(re.findall(r"--([a-z-]+)", run)))

page = text("deploy/man/culvert.yaml.5.scd").split("# EXAMPLE")[0]
keys = set(re.findall(r"""^\s*\{"([a-z_]+)", set_""", text("src/relay/route.c"), re.M))
source = text("src/control/configuration_yaml.c")
keys |= set(re.findall(r"""\{"([a-z_]+)", set_""", source))
# Nested ones are written inside braces: control: { socket: PATH, http: ADDRESS }
named = set(re.findall(r"\*([a-z_]+):\*", page)) | set(re.findall(r"[{,] ([a-z_]+): ", page))
compare("key", named, keys)

print("\n".join(bad))
sys.exit(1 if bad else 0)
