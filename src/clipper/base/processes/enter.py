"""``python -s -P -m clipper.base.processes.enter UID GID,… DATA_BYTES CORES FD PROGRAM…`` begins a user's container.

It starts as the server's user and limits itself, which is allowed even if root's rights are reduced; to limit another
user's process is not. Then it becomes the other user, and then the program. ``-`` stands for no limit. ``-s -P`` keep
Python from importing anything from the folder that it starts in or from its user's home: others may write there.

The program's own variables come as JSON from the descriptor FD, if it is not ``-``: as variables of this process, which
still has the server's rights, they could have it run any code, such as that of LD_PRELOAD.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence

from clipper.base.processes import limits
from clipper.base.run_as import RunAs, become


def entering(
    run_as: RunAs,
    data_bytes: int | None,
    cores: frozenset[int] | None,
    argv: Sequence[str],
    variables: int | None = None,
) -> list[str]:
    """Return the command line that becomes ``argv``, with the limits of ``limits.apply``.

    ``variables`` is the descriptor of ``variables_file``, which the process must inherit.
    """
    bounds = ["-" if data_bytes is None else str(data_bytes), ",".join(map(str, sorted(cores))) if cores else "-"]
    user = [str(run_as.uid), ",".join(map(str, (run_as.gid, *run_as.groups)))]
    given = "-" if variables is None else str(variables)
    return [sys.executable, "-s", "-P", "-m", "clipper.base.processes.enter", *user, *bounds, given, *argv]


def variables_file(variables: Mapping[str, str]) -> int:
    """Return the descriptor of a file in memory with these variables. The caller closes it."""
    descriptor = os.memfd_create("variables")
    os.write(descriptor, json.dumps(dict(variables)).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def main() -> None:
    uid, groups, data_bytes, cores, given, *argv = sys.argv[1:]
    on = None if cores == "-" else frozenset(map(int, cores.split(",")))
    limits.apply(os.getpid(), None if data_bytes == "-" else int(data_bytes), on)
    gid, *others = map(int, groups.split(","))
    try:
        become(int(uid), gid, others)
    except OSError as error:
        sys.exit(f"clipper: it cannot become the user {uid} in the group {gid}: {error}")
    environment = dict(os.environ)
    if given != "-":
        with os.fdopen(int(given), "rb") as file:
            environment |= json.load(file)
    try:
        os.execvpe(argv[0], argv, environment)
    except OSError as error:
        sys.exit(f"clipper: it cannot be started with {argv[0]}: {error}")


if __name__ == "__main__":
    main()
