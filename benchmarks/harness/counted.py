"""Runs a worker under callgrind, with a clock that is as slow as callgrind makes the worker.

Without the slow clock all that the worker does by time, such as the end of a turn after two milliseconds, would come 50
times as often in a query as it does.
"""

import os
import sys

OPTIONS = ("--tool=callgrind", "--instr-atstart=no", "--log-file=/dev/null")


def begin(folder: str, faketime: str) -> None:
    """Begin again under callgrind if this process is a worker of a server whose home is below ``folder``.

    Python calls it at its start: see ``at_start.py``.
    """
    is_worker = "clipper.worker" in sys.orig_argv and any(folder in argument for argument in sys.orig_argv)
    if is_worker and "FAKETIME" not in os.environ:
        os.environ.update(LD_PRELOAD=faketime, FAKETIME="+0 x0.02", FAKETIME_DONT_RESET="1", PYTHONHASHSEED="0")
        counts = f"--callgrind-out-file={folder}/counts.%p"
        os.execvp("valgrind", ["valgrind", *OPTIONS, counts, sys.executable, *sys.orig_argv[1:]])
