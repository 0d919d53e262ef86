"""Asks pip-audit about the packages in a folder, and tells "no weakness is known" from "the service gave no answer".

    audit.py FOLDER [OPTIONS OF PIP-AUDIT]

pip-audit itself prints "No known vulnerabilities found" also where no package could be asked about. The exit status is
0 if the service knows every package and no weakness, 1 if it knows a weakness, and 3 if the audit could not be done.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

# Before its first upload no service knows it.
OWN = "clipper-serving"
CLEAN, WEAK, NOT_DONE = 0, 1, 3
MOST_NAMES = 5


def verdict(packages: Sequence[dict[str, Any]]) -> tuple[int, list[str]]:
    """Return the exit status and what to print, by the ``dependencies`` of pip-audit's JSON."""
    unknown = [one["name"] for one in packages if "skip_reason" in one and one["name"] != OWN]
    asked = sum("vulns" in one for one in packages)
    lines = [
        f"{one['name']} {one['version']}: {weakness['id']}, mended in {' or '.join(weakness['fix_versions']) or 'none'}"
        for one in packages
        for weakness in one.get("vulns", ())
    ]
    if lines:
        return WEAK, [
            *lines,
            f"pip-audit: {len(lines)} known weaknesses; {asked} of {len(packages)} packages were asked about",
        ]
    if unknown or not asked:
        names = ", ".join(unknown[:MOST_NAMES]) + (" and others" if len(unknown) > MOST_NAMES else "")
        return NOT_DONE, [
            _not_done(f"the service gave no answer about {len(unknown)} of {len(packages)} packages ({names})")
        ]
    return CLEAN, [f"pip-audit: asked about {asked} packages, no weakness is known"]


def _not_done(why: str) -> str:
    return f"The audit was NOT done: {why}. Run it where the service can be reached."


def main(folder: str, *options: str) -> int:
    command = [sys.executable, "-m", "pip_audit", "--path", folder, "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    try:
        status, lines = verdict(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or [f"it exited with {done.returncode}"])[-1]
        status, lines = NOT_DONE, [_not_done(f"pip-audit failed: {last}")]
    print(*lines, sep="\n", file=sys.stderr if status else sys.stdout)
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
