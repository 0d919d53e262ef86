"""``python -m tests.fuzz --seconds 60``: tries all that is fuzzed in turns, until the time is over or one fails."""

import argparse
import sys
import time
from collections import Counter
from contextlib import ExitStack
from random import SystemRandom

from tests import fuzz_control, fuzz_tls
from tests.fuzz_artifacts import serving, uploading
from tests.fuzz_containers import lying
from tests.fuzz_schema import check_answers
from tests.worker.frontend import fuzz_front

TRIES = fuzz_front.TRIES | fuzz_tls.TRIES | fuzz_control.TRIES

# Of those that wait for processes, one after so many of those that do not.
FAST_TRIES = 40
# Of the time, what the management API's description is held against its answers for; it takes some seconds to begin.
SCHEMA_SHARE, MAX_SCHEMA_S, SCHEMA_EXAMPLES = 0.25, 60.0, 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description="Send what nobody should, and look at what happens.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=SystemRandom().randrange(1 << 40), help="number of the first try")
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    number = arguments.first
    print(f"the first try has number {number}", flush=True)
    end_s = time.monotonic() + arguments.seconds
    with serving() as server:
        print(check_answers(server, SCHEMA_EXAMPLES, min(arguments.seconds * SCHEMA_SHARE, MAX_SCHEMA_S)), flush=True)
    with ExitStack() as stack:
        slow, checks = {}, []
        for context in (lying(), uploading()):
            tries, check = stack.enter_context(context)
            slow |= tries
            checks.append(check)
        while time.monotonic() < end_s:
            for kind, attempt in (TRIES if number % FAST_TRIES else TRIES | slow).items():
                try:
                    attempt(number)
                except BaseException:
                    print(f"try {number} of {kind!r} found something: keep it in the KEPT of its tests", flush=True)
                    raise
                counts[kind] += 1
            number += 1
        for check in checks:
            check()
    print(", ".join(f"{count} tries of {kind}" for kind, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
