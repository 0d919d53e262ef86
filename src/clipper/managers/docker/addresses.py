"""Where containers in Docker are dialled, with a folder for each: its socket is in it, or its token."""

import os
import secrets
import shutil
import socket
from collections.abc import Collection
from pathlib import Path

from clipper.managers.docker.options import LOOPBACK, PUBLISHED, Surroundings
from clipper.managers.launcher import ContainerNote


class Addresses:
    """The addresses of one home's containers, and what a later supervisor needs to dial them."""

    def __init__(self, sockets: Path, around: Surroundings) -> None:
        self._sockets = sockets
        self._around = around
        # One that is bound, and not listened on, is given to nobody else; and a container may still listen there.
        self._held: dict[int, socket.socket] = {}

    def choose(self, number: int) -> str:
        """What the container with this number is to listen on: see ``Launcher.choose_address``."""
        if self._around.transport == "unix":
            return f"unix:{self._folder(number) / 's'}"
        if self._around.publishes:
            return PUBLISHED
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((LOOPBACK, 0))
        self._held[number] = held
        return f"tcp:{LOOPBACK}:{held.getsockname()[1]}"

    def prepare(self, note: ContainerNote) -> str:
        """Make its folder; return its token, which is new, or empty if it needs none."""
        # Apart from others': mounting it shows a container no other's socket.
        folder = self._folder(note.number)
        folder.mkdir(mode=0o700, exist_ok=True)
        if note.listen.startswith("unix:"):
            return ""
        token = secrets.token_urlsafe()
        with open(folder / "token", "w", opener=_open_private) as file:
            file.write(token)
        return token

    def token(self, note: ContainerNote) -> str:
        """What ``prepare`` returned, to whatever supervisor.

        Raises:
            OSError: it cannot be read.
        """
        return "" if note.listen.startswith("unix:") else (self._folder(note.number) / "token").read_text()

    def is_ready(self, note: ContainerNote) -> bool:
        return self._ready(note.number).exists()

    def note_ready(self, note: ContainerNote) -> None:
        """Have ``is_ready`` say so, to whatever supervisor.

        Raises:
            OSError: it cannot be written.
        """
        self._ready(note.number).touch()

    def give_back(self, note: ContainerNote) -> None:
        """Nobody listens there any more."""
        if held := self._held.pop(note.number, None):
            held.close()
        self._ready(note.number).unlink(missing_ok=True)
        shutil.rmtree(self._folder(note.number), ignore_errors=True)  # a container that hangs may keep it

    def give_back_others(self, notes: Collection[ContainerNote]) -> None:
        """What an earlier supervisor left of other containers than these."""
        kept = {path for note in notes for path in (self._folder(note.number), self._ready(note.number))}
        for ready in self._sockets.glob("c[0-9]*.ready"):
            if ready not in kept:
                ready.unlink(missing_ok=True)
        for folder in self._sockets.glob("c[0-9]*/"):
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _ready(self, number: int) -> Path:
        """Beside its folder: what is in there is the container's to make, also as a link to somewhere else."""
        return self._sockets / f"c{number}.ready"

    def _folder(self, number: int) -> Path:
        return self._sockets / f"c{number}"


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
