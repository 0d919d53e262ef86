"""``python -m clipper.model.runtime.fork_server``: import libraries once, and fork containers that share their memory.

Its parent commands it over a socket. Each message and each answer is a JSON object of at most
``MAX_FORK_MESSAGE_BYTES``. The fork server ends when its parent closes the socket.

- It begins with ``Warm``, with the memory that it takes; or with ``Unfit``, with the reason why it cannot fork.
- ``Fork``, with the descriptor of the container's log, is answered with ``Forked`` once the process has its own
  session, mark and folder, or with ``Refused``.
- ``Reap`` asks how a forked process has exited. Until then no other process gets its process id.

The fork server runs no code of any model: only the named modules, which are Clipper's and libraries'. A container
closes the socket before any code of its model runs.
"""

import argparse
import atexit
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from clipper.model.runtime import __main__ as container_program
from clipper.model.runtime import forked
from clipper.model.runtime.forked import Container, ProcessTexts
from clipper.values.types import MAX_FORK_MESSAGE_BYTES, ROOM_VARIABLE

# A model's threads and sockets do not work in a process that is forked later.
_LIVE_DESCRIPTORS = ("socket:", "pipe:", "anon_inode:")
_MAX_REASON_BYTES = 4096
# The module that each container imports besides its libraries.
_PROGRAM = "clipper.model.runtime.program"


def main() -> int:
    arguments = _parser().parse_args()
    # ^C reaches the whole process group of a server in the foreground. The socket says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Each container does the same.
    sys.dont_write_bytecode = True
    if arguments.guarded:
        forked.set_dumpable(False)
    os.environ.pop(ROOM_VARIABLE, None)
    texts = ProcessTexts.find()
    with socket.socket(fileno=arguments.socket) as channel:
        channel.set_inheritable(False)
        # A collection between imports would touch every object, and no object ends before the process does.
        gc.disable()
        why = _import([_PROGRAM, *arguments.modules]) or _alive(arguments.socket)
        if texts is None:
            why = why or "the kernel does not say where a process's arguments and variables are"
        if why or texts is None:
            _send(channel, {"type": "Unfit", "why": why})
            return 0
        texts.write([sys.executable, "-m", "clipper.model.runtime.fork_server", *arguments.modules], dict(os.environ))
        gc.collect()
        # A collection writes to the objects that it looks at, and pages are shared only until a process writes to them.
        gc.freeze()
        resident_pages = int(Path("/proc/self/statm").read_bytes().split()[1])
        _send(channel, {"type": "Warm", "resident_bytes": resident_pages * os.sysconf("SC_PAGE_SIZE")})
        is_container = _serve(channel, texts)
    if is_container:
        end(container_program.main())
    return 0


def end(code: int) -> NoReturn:
    """End a container as Python would, but leave its objects alone.

    To take them apart would write to all shared memory, in all containers at once when a server stops.
    """
    # A model may have threads that still have something to write.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the model may have closed or replaced the stream
            stream.flush()
    os._exit(code)


def _serve(channel: socket.socket, texts: ProcessTexts) -> bool:
    """Answer until the parent closes the socket; return True in a process that was forked and is a container now."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, MAX_FORK_MESSAGE_BYTES, 1)
        if not message:
            return False
        request: dict[str, Any] = json.loads(message)
        if request.pop("type") == "Reap":
            _send(channel, {"type": "Reaped", "code": _reap(request["pid"])})
            continue
        reader, writer = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(reader)
            os.close(writer)
            os.close(descriptors[0])
            _send(channel, {"type": "Refused", "why": str(error)})
            continue
        if pid == 0:
            os.close(reader)
            channel.close()
            _become(Container(**request), texts, descriptors[0], writer)
            return True
        os.close(writer)
        os.close(descriptors[0])
        with os.fdopen(reader, "rb") as answer:
            why = answer.read(_MAX_REASON_BYTES).decode(errors="replace")
        if why:
            os.waitpid(pid, 0)
        _send(channel, {"type": "Refused", "why": why} if why else {"type": "Forked", "pid": pid})


def _reap(pid: int) -> int | None:
    """Return the exit status of a forked process; None while it runs, or if it is no child of this process."""
    try:
        exited, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if exited else None


def _become(container: Container, texts: ProcessTexts, output: int, writer: int) -> None:
    """Become the container and close ``writer``; or write the reason why this fails there, and end."""
    try:
        forked.become(container, texts, output)
    except Exception as error:  # noqa: BLE001  # of whatever kind: nothing may go on as a second fork server
        os.write(writer, (str(error) or repr(error)).encode(errors="replace")[:_MAX_REASON_BYTES])
        os._exit(1)
    os.close(writer)


def _import(modules: list[str]) -> str:
    """Import libraries. Return why a library cannot be imported; empty if all can."""
    for module in modules:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a library may raise anything
            return f"{module} cannot be imported: {type(error).__name__}: {error}"[:_MAX_REASON_BYTES]
    return ""


def _alive(channel: int) -> str:
    """Return what a forked process would lack or wrongly share, which forbids to fork; empty if there is nothing."""
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        return f"its libraries start {threads - 1} threads when they are imported"
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:  # the descriptor was that of the listing itself
            continue
        if int(descriptor.name) > 2 and int(descriptor.name) != channel and target.startswith(_LIVE_DESCRIPTORS):
            return f"its libraries open {target} when they are imported"
    return ""


def _send(channel: socket.socket, reply: dict[str, Any]) -> None:
    channel.send(json.dumps(reply).encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m clipper.model.runtime.fork_server", description="Fork containers.")
    parser.add_argument("--socket", type=int, required=True, metavar="FD", help="the socket of its parent's commands")
    parser.add_argument("--guarded", action="store_true", help="keep other processes of this user out of its memory")
    parser.add_argument("--room", metavar="TEXT", help="a text that makes room for the arguments of containers")
    parser.add_argument("modules", nargs="*", help="the modules to import")
    return parser


if __name__ == "__main__":
    sys.exit(main())
