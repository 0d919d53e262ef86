"""``python -m clipper.supervisor.managers.environments.prepare``: find or make the Python that a model runs in.

It reads a line of JSON, a ``Request``. It writes lines of ``Progress``, and last a ``Prepared`` or ``Refused``.

It is a process of its own because all of this blocks, and so that everything that it starts can be ended with it: it
kills its own session when its standard input ends, which happens when the supervisor ends.
"""

import io
import os
import signal
import sys
import threading
from pathlib import Path

import msgspec
from msgspec import Struct

from clipper.base.run_as import RunAs
from clipper.client.packaging.needs import needs_of_data
from clipper.errors import ClipperError, ContainerFailed
from clipper.supervisor.managers.environments.builder import build_environment
from clipper.supervisor.managers.environments.interpreters import find_interpreter, installed_packages
from clipper.supervisor.managers.environments.plan import Own, Recipe, mismatch, plan_environment


class Request(Struct, frozen=True):
    """The wishes of a model: see ``plan_environment``.

    Environments are in ``root``; interpreters and builds run as ``run_as``. ``data`` is the path of the data that code
    gets. The versions with which a pickle there was saved are compared, but nothing is built for it: the code may need
    other packages that only Clipper's own Python has.
    """

    root: str
    requirements: str | None
    python: str | None
    needs: tuple[str, ...]
    run_as: RunAs | None = None
    data: str | None = None


class Progress(Struct, frozen=True, tag=True):
    text: str


class Prepared(Struct, frozen=True, tag=True):
    """The interpreter to use. ``warning``: how its packages differ from those with which the model was saved."""

    python: str
    warning: str | None = None


class Refused(Struct, frozen=True, tag=True):
    reason: str
    log_tail: tuple[str, ...] = ()


Reply = Progress | Prepared | Refused


def main() -> None:
    # Unbuffered: a buffer has a lock, which the thread would hold while Python ends.
    incoming = io.FileIO(0, "rb", closefd=False)
    request = msgspec.json.decode(incoming.readline(), type=Request)
    threading.Thread(target=_end_with, args=(incoming,), daemon=True).start()
    try:
        _reply(_prepare(request))
    except ContainerFailed as error:
        _reply(Refused(str(error), tuple(error.log_tail)))
    except ClipperError as error:
        _reply(Refused(str(error)))


def _prepare(request: Request) -> Prepared:
    own = Own(find_interpreter(sys.executable), installed_packages(sys.executable))
    build = plan_environment(request.requirements, request.python, request.needs, own)
    if build is None:
        python = request.python or sys.executable
    else:
        interpreter = own.interpreter if build.python is None else find_interpreter(build.python, request.run_as)
        recipe = Recipe(build.requirements, interpreter)
        root = Path(request.root)
        python = str(build_environment(recipe, root, lambda text: _reply(Progress(text)), run_as=request.run_as))
    saved_with = () if request.data is None else needs_of_data(Path(request.data))
    return Prepared(python, mismatch((*request.needs, *saved_with), installed_packages(python, request.run_as)))


def _end_with(incoming: io.FileIO) -> None:
    incoming.read(1)
    os.killpg(0, signal.SIGKILL)


def _reply(reply: Reply) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
