"""``python -m fuzz --seconds 60``: tries all that is fuzzed in turns, until the time is over or something is found."""

import argparse
import sys
import time
from collections import Counter
from random import SystemRandom

from fuzz_front import TRIES


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description="Send what nobody should, and look at what happens.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=SystemRandom().randrange(1 << 40), help="number of the first try")
    arguments = parser.parse_args()
    end_s = time.monotonic() + arguments.seconds
    counts: Counter[str] = Counter()
    number = arguments.first
    print(f"the first try has number {number}", flush=True)
    while time.monotonic() < end_s:
        for kind, attempt in TRIES.items():
            try:
                attempt(number)
            except BaseException:
                print(f"try {number} of {kind!r} found something: keep it in tests/frontend/test_fuzz.py", flush=True)
                raise
            counts[kind] += 1
        number += 1
    print(", ".join(f"{count} tries of {kind}" for kind, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
