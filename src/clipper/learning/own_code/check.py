"""``python -m clipper.learning.own_code.check``: checks that the policy and loss of a ``Selection`` can be made.

It reads the selection as JSON from standard input. It runs in a process of its own, since making a user's policy runs
the user's code. Exit status: 0 if they can be made; 1 if not, with the reason on standard output. The process that
starts it bounds it like a container: in memory, files and environment, and by killing all that it forked.
"""

import os
import signal
import sys

import msgspec

from clipper.base.run_as import forbid_new_privileges
from clipper.errors import InvalidArgument
from clipper.learning.policies.by_name import make_loss, make_policy
from clipper.settings.application import Selection

# Importing a large library takes seconds. The kernel's alarm ends this process even if its parent is gone.
TIMEOUT_S = 20
# The longest message: enough to name the problem, but not for everything that it may quote.
MAX_VERDICT = 2000


def main() -> int:
    forbid_new_privileges()
    signal.alarm(TIMEOUT_S)
    # The user's code is in a read-only artifact, but Python as root would write bytecode there.
    sys.dont_write_bytecode = True
    with os.fdopen(os.dup(1), "w", errors="backslashreplace") as verdict:
        # Lines that the user's code prints are not part of the verdict.
        os.dup2(2, 1)
        selection = msgspec.json.decode(sys.stdin.buffer.read(), type=Selection)
        try:
            make_policy(selection.policy, selection.parameters, selection.code)
            make_loss(selection.loss, selection.loss_parameters, selection.code)
        except InvalidArgument as error:
            verdict.write(str(error)[:MAX_VERDICT])
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
