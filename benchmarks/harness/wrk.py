"""Runs wrk and reads what it prints."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

LUA = Path(__file__).parents[1]

_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class WrkFailed(Exception):
    """wrk could not run, or nothing was answered."""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw.

    Attributes:
        failed: answers that were not 2xx or 3xx.
        broken: connections that failed, and reads, writes and time-outs that did.
        defaults: answers that were a default, where the script counts them.
    """

    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    failed: int
    broken: int
    defaults: int = 0


def run(url: str, script: Path, *, connections: int, seconds: int, bodies: Path | None = None) -> Load:
    """Load ``url`` from one thread of wrk.

    Args:
        bodies: what ``bodies.lua`` sends, one a line.

    Raises:
        WrkFailed: wrk ended with an error, or no request was answered.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    environ = os.environ | ({} if bodies is None else {"BODIES": str(bodies)})
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=seconds + 30, check=False)
    if done.returncode:
        raise WrkFailed(f"{' '.join(command)} exited {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return parse(done.stdout)


def parse(text: str) -> Load:
    """Read wrk's report.

    Raises:
        WrkFailed: it is not one, or tells of no request.
    """
    total = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec: +([\d.]+)", text)
    if total is None or rate is None or total[1] == "0":
        raise WrkFailed(f"wrk reports no answered request:\n{text}")
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    defaults = re.search(r"^Defaults: (\d+)", text, re.MULTILINE)
    return Load(
        requests=int(total[1]),
        requests_per_s=float(rate[1]),
        p50_ms=_percentile_ms(text, 50),
        p99_ms=_percentile_ms(text, 99),
        failed=int(failed[1]) if failed else 0,
        broken=sum(map(int, broken.groups())) if broken else 0,
        defaults=int(defaults[1]) if defaults else 0,
    )


def _percentile_ms(text: str, percent: int) -> float:
    found = re.search(rf"^ +{percent}% +([\d.]+)(us|ms|s) *$", text, re.MULTILINE)
    if found is None:
        raise WrkFailed(f"wrk reports no {percent}th percentile:\n{text}")
    return float(found[1]) * _UNITS_MS[found[2]]
