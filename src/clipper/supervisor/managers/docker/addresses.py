"""Where containers in Docker are dialled. Each has a folder, which holds its socket or its token."""

import os
import secrets
import socket
from collections.abc import Collection
from functools import partial
from pathlib import Path

from clipper.base.trees import remove_tree
from clipper.supervisor.managers.docker.options import LOOPBACK, PUBLISHED, Setting
from clipper.supervisor.managers.launcher import ContainerNote


class Addresses:
    """The addresses of one home's containers, and what a later supervisor needs to dial them."""

    def __init__(self, sockets: Path, setting: Setting) -> None:
        self._sockets = sockets
        self._setting = setting
        # While a port is bound here, the system gives it to nobody else. A container can listen on it all the same.
        self._held: dict[int, socket.socket] = {}

    def choose(self, number: int) -> str:
        """Choose the address that the container with this number has to listen on: see ``Launcher.choose_address``."""
        if self._setting.transport == "unix":
            return f"unix:{self._folder(number) / 's'}"
        if self._setting.publishes:
            return PUBLISHED
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((LOOPBACK, 0))
        self._held[number] = held
        return f"tcp:{LOOPBACK}:{held.getsockname()[1]}"

    def prepare(self, note: ContainerNote) -> str:
        """Make its folder; return a new token, or an empty one if it needs no token."""
        # A folder for each: a container that mounts its own sees no other's socket.
        folder = self._folder(note.number)
        folder.mkdir(mode=0o700, exist_ok=True)
        if note.listen.startswith("unix:"):
            return ""
        token = secrets.token_urlsafe()
        with open(folder / "token", "w", opener=partial(os.open, mode=0o600)) as file:
            file.write(token)
        return token

    def token(self, note: ContainerNote) -> str:
        """What ``prepare`` returned, also if an earlier supervisor called it.

        Raises:
            OSError: it cannot be read.
        """
        return "" if note.listen.startswith("unix:") else (self._folder(note.number) / "token").read_text()

    def shared_folder(self, note: ContainerNote) -> Path | None:
        """The folder that its container may write to; None if it shares none with us."""
        return self._folder(note.number) if note.listen.startswith("unix:") else None

    def is_ready(self, note: ContainerNote) -> bool:
        return self._ready(note.number).exists()

    def note_ready(self, note: ContainerNote) -> None:
        """Make ``is_ready`` true, also for later supervisors.

        Raises:
            OSError: it cannot be written.
        """
        self._ready(note.number).touch()

    def give_back(self, note: ContainerNote) -> None:
        """Free an address that nobody listens on any more."""
        if held := self._held.pop(note.number, None):
            held.close()
        self._ready(note.number).unlink(missing_ok=True)
        remove_tree(self._folder(note.number))

    def give_back_others(self, notes: Collection[ContainerNote]) -> None:
        """Remove what an earlier supervisor left of containers that are not among these."""
        kept = {path for note in notes for path in (self._folder(note.number), self._ready(note.number))}
        for ready in self._sockets.glob("c[0-9]*.ready"):
            if ready not in kept:
                ready.unlink(missing_ok=True)
        for folder in self._sockets.glob("c[0-9]*/"):
            if folder not in kept:
                remove_tree(folder)

    def _ready(self, number: int) -> Path:
        """A file beside its folder, because in its folder the container could make it, even as a link to elsewhere."""
        return self._sockets / f"c{number}.ready"

    def _folder(self, number: int) -> Path:
        return self._sockets / f"c{number}"
