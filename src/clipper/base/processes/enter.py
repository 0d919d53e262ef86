"""``python -s -P -m clipper.base.processes.enter UID GID DATA_BYTES CORES PROGRAM…`` begins another user's container.

It starts as the server's user and limits itself, which is allowed even if root's rights are reduced; to limit another
user's process is not. Then it becomes the other user, and then the program. ``-`` stands for no limit. ``-s -P`` keep
Python from importing anything from the folder that it starts in or from its user's home: others may write there.
"""

import os
import sys
from collections.abc import Sequence

from clipper.base.processes import limits
from clipper.base.run_as import RunAs, become


def entering(run_as: RunAs, data_bytes: int | None, cores: frozenset[int] | None, argv: Sequence[str]) -> list[str]:
    """Return the command line that becomes ``argv``, with the limits of ``limits.apply``."""
    bounds = ["-" if data_bytes is None else str(data_bytes), ",".join(map(str, sorted(cores))) if cores else "-"]
    user = [str(run_as.uid), str(run_as.gid)]
    return [sys.executable, "-s", "-P", "-m", "clipper.base.processes.enter", *user, *bounds, *argv]


def main() -> None:
    uid, gid, data_bytes, cores, *argv = sys.argv[1:]
    on = None if cores == "-" else frozenset(map(int, cores.split(",")))
    limits.apply(os.getpid(), None if data_bytes == "-" else int(data_bytes), on)
    become(int(uid), int(gid))
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        sys.exit(f"clipper: it cannot be started with {argv[0]}: {error}")


if __name__ == "__main__":
    main()
