"""``python -m clipper.selection.check``: whether the policy and the loss of a ``Selection`` can be made.

It is read as JSON from standard input. A process of its own, since making a policy of the user's runs the user's code:
whatever that does, it does to nobody else. Exit status: 0 they can be made; 1 not, and standard output says why.
Who starts it bounds it as a container is bounded: its memory, files, environment, and that nothing of it is left.
"""

import os
import signal
import sys

import msgspec

from clipper.errors import InvalidArgument
from clipper.run_as import forbid_new_privileges
from clipper.selection.policies.by_name import make_loss, make_policy
from clipper.settings.application import Selection

# Importing a large library takes seconds. The kernel ends us then, also if nobody waits for the verdict any more.
TIMEOUT_S = 20
# Enough for any message that says what is wrong, and not for what a message may quote.
MAX_VERDICT = 2000


def main() -> int:
    forbid_new_privileges()
    signal.alarm(TIMEOUT_S)
    with os.fdopen(os.dup(1), "w", errors="backslashreplace") as verdict:
        # What the user's code prints is no verdict.
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
