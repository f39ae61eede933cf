#!/usr/bin/env python3
"""Adds up meson's test logs for tests/run: record, candidates for a second try, total."""
import json
import sys

GOOD = {"OK", "EXPECTEDFAIL"}
# These suites depend on a machine that may be shared; anything else fails at once.
TRAFFIC = {"net", "relay", "deploy"}
# A sanitizer's finding is a finding, however the second try goes.
FINDINGS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:",
            "WARNING: ThreadSanitizer")


def suites(test):
    """Those of a test: the log has `project:suite+suite / name`."""
    return set(test["name"].split(" / ")[0].split(":")[-1].split("+"))


def read(path):
    """The tests of a meson testlog.json: one object a line."""
    try:
        with open(path, encoding="utf-8", errors="replace") as log:
            return [json.loads(line) for line in log if line.strip()]
    except FileNotFoundError:
        return []


def plain(test):
    """The name by which `meson test` takes it: the log has `project:suite / name`."""
    return test["name"].split(" / ")[-1]


def reason(test):
    """The last line a skipped test wrote: by our rule it says why."""
    lines = (test.get("stdout", "") + "\n" + test.get("stderr", "")).strip().splitlines()
    return lines[-1].strip() if lines else "no reason given"


def record(stage, path, results, retry):
    """Appends one line a test to results; traffic tests that failed go to retry instead."""
    tests = read(path)
    if not tests:
        print(f"{stage}: no test ran")
        with open(results, "a", encoding="utf-8") as out:
            print("failed", stage, "(no test ran)", sep="\t", file=out)
    with open(results, "a", encoding="utf-8") as out, open(retry, "a", encoding="utf-8") as again:
        for test in tests:
            result, name = test["result"], plain(test)
            output = test.get("stdout", "") + test.get("stderr", "")
            if result in GOOD:
                print("passed", stage, name, sep="\t", file=out)
            elif result == "SKIP":
                print("skipped", stage, name, reason(test), sep="\t", file=out)
                print(f"skipped: {name} ({stage}): {reason(test)}")
            elif suites(test) & TRAFFIC and not any(f in output for f in FINDINGS):
                print(stage, name, sep="\t", file=again)
            else:
                print("failed", stage, name, result, sep="\t", file=out)


def second(stage, name, path, results):
    """Records how the second try of one test went, and says so."""
    tests = read(path)
    good = bool(tests) and all(t["result"] in GOOD | {"SKIP"} for t in tests)
    print(f"passed at the second try: {name} ({stage})" if good
          else f"failed twice: {name} ({stage})")
    with open(results, "a", encoding="utf-8") as out:
        print("passed" if good else "failed", stage, name, "second try", sep="\t", file=out)


def total(results):
    """Prints the failures and the last line; returns whether nothing failed."""
    count = {"passed": 0, "failed": 0, "skipped": 0}
    with open(results, encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    for row in rows:
        count[row[0]] += 1
        if row[0] == "failed":
            print("failed:", *row[1:])
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return count["failed"] == 0 and count["passed"] > 0


if __name__ == "__main__":
    command, args = sys.argv[1], sys.argv[2:]
    if command == "total":
        sys.exit(0 if total(*args) else 1)
    {"record": record, "second": second}[command](*args)
