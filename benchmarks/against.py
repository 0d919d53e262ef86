"""``python -m benchmarks.against COMMIT``: the worker's processor time for a query, this source over that of a commit.

It exits 1 if a kind of query takes over 2 % more, in the median of all rounds; or, with ``--instructions``, executes
over 2 % more instructions. These vary less on a busy machine, but tell nothing of the kernel's time.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median, quantiles

from benchmarks.harness import instructions, pairs, servers
from benchmarks.harness.termination import end_in_order_at_sigterm
from benchmarks.harness.workbench import EQUAL_PIXELS, FOUR, HERE, PIXELS

MOST = 1.02
CASES = {
    "4 floats": pairs.Case(FOUR),
    "4 floats, 128 connections": pairs.Case(FOUR, connections=128),
    "4 floats, one connection": pairs.Case(FOUR, connections=1),
    "784 floats": pairs.Case(PIXELS),
    "784 floats, from the cache": pairs.Case(EQUAL_PIXELS),
    "4 floats, exp3 over five models": pairs.Case(FOUR, application=pairs.EXP3),
}


def main(commit: str, times: int) -> int:
    commands = (command_of(commit), servers.clipper_command())
    print(
        f"| query | {commit}, µs | this, µs | this over {commit}: median | half of the rounds |\n|---|---|---|---|---|"
    )
    is_slower = False
    for name, rounds in pairs.query_us(commands, CASES, times).items():
        before, now = zip(*rounds)
        ratios = [after / first for first, after in rounds]
        low, middle, high = quantiles(ratios, n=4, method="inclusive")
        is_slower |= middle > MOST
        print(f"| {name} | {median(before):.1f} | {median(now):.1f} | {middle:.3f} | {low:.3f} to {high:.3f} |")
    return int(is_slower)


def count(commit: str) -> int:
    print(f"| query | instructions, {commit} | this | this over {commit} |\n|---|---|---|---|")
    is_more = False
    commands = (command_of(commit), servers.clipper_command())
    for name, (before, now) in instructions.query_instructions(commands, CASES).items():
        is_more |= now > MOST * before
        print(f"| {name} | {before:,.0f} | {now:,.0f} | {now / before:.3f} |")
    return int(is_more)


def command_of(commit: str) -> str:
    """The ``clipper`` of a commit, in a checkout of its own outside of this one; it is made if it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = HERE.parent
    found = subprocess.run(
        ["git", "-C", root, "rev-parse", "--verify", f"{commit}^{{commit}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        sys.exit(f"{commit} is not a commit of this repository")
    folder = cache / "clipper" / "against" / found.stdout.strip()[:12]
    if not folder.exists():
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", root, folder], check=True)
        subprocess.run(["git", "-C", folder, "checkout", "--quiet", found.stdout.strip()], check=True)
    subprocess.run(["sh", folder / "scripts/setup.sh", "bench"], check=True)
    return str(folder / ".venv/bin/clipper")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against", description=__doc__)
    parser.add_argument("commit", help="what this source is compared with")
    parser.add_argument("--pairs", type=int, default=6, help="how often both servers are started anew (6)")
    parser.add_argument("--instructions", action="store_true", help="count instructions in place of processor time")
    asked = parser.parse_args()
    end_in_order_at_sigterm()
    sys.exit(count(asked.commit) if asked.instructions else main(asked.commit, asked.pairs))
