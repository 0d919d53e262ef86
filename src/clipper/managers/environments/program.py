"""``python -m clipper.managers.environments.program``: find or make the Python that one model runs in.

One JSON line comes in, a ``Request``. Lines of ``Progress`` go out, and at last one ``Prepared`` or ``Refused``. It is
a process of its own, since all of it blocks, and since with it ends all that it started: it kills its session when its
standard input ends, which it does when the supervisor does.
"""

import io
import os
import signal
import sys
import threading
from pathlib import Path

import msgspec
from msgspec import Struct

from clipper.errors import ClipperError, ContainerFailed
from clipper.managers.environments.builder import build_environment
from clipper.managers.environments.interpreters import find_interpreter, installed_packages
from clipper.managers.environments.plan import Build, Own, mismatch, plan_environment
from clipper.managers.environments.recipe import Recipe
from clipper.run_as import RunAs


class Request(Struct, frozen=True):
    """What a model asks for: see ``plan_environment``.

    Attributes:
        root: where environments are.
        run_as: the user that interpreters and builds run as.
    """

    root: str
    requirements: str | None
    python: str | None
    needs: tuple[str, ...]
    run_as: RunAs | None = None


class Progress(Struct, frozen=True, tag=True):
    text: str


class Prepared(Struct, frozen=True, tag=True):
    """``warning``: what the user should know of how the model and the packages of this Python fit."""

    python: str
    warning: str | None = None


class Refused(Struct, frozen=True, tag=True):
    reason: str
    log_tail: tuple[str, ...] = ()


Reply = Progress | Prepared | Refused


def main() -> None:
    # Without a buffer, whose lock the thread would hold when Python ends.
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
    python = _built(build, request, own) if build else request.python or sys.executable
    return Prepared(python, mismatch(request.needs, installed_packages(python, request.run_as)))


def _built(build: Build, request: Request, own: Own) -> str:
    interpreter = own.interpreter if build.python is None else find_interpreter(build.python, request.run_as)
    recipe = Recipe(build.requirements, interpreter)
    return str(
        build_environment(recipe, Path(request.root), lambda text: _reply(Progress(text)), run_as=request.run_as)
    )


def _end_with(incoming: io.FileIO) -> None:
    incoming.read(1)
    os.killpg(0, signal.SIGKILL)


def _reply(reply: Reply) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
