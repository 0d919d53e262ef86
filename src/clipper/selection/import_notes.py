"""Which users' code a worker is importing, noted where the worker that comes after it finds it.

What holds the interpreter's lock while it is imported takes the whole process with it, and what breaks it ends it:
nobody in the process can tell then. So it is noted before, and crossed out behind.
"""

import logging
from collections.abc import Collection
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)


class ImportNotes:
    """A file that outlives its worker. Bounded by the applications of one snapshot."""

    def __init__(self, path: Path | None) -> None:
        """``path``: the same for each worker that takes the place of another; None keeps no notes."""
        self._path = path
        self._fatal = set(_read(path)) if path is not None else set()
        self._begun: list[str] = []

    def was_fatal(self, key: str) -> bool:
        """Whether a worker before this one ended while it imported what ``key`` stands for."""
        return key in self._fatal

    def begin(self, key: str) -> None:
        self._begun.append(key)
        self._write()

    def end(self, key: str) -> None:
        self._begun.remove(key)
        self._write()

    def keep(self, keys: Collection[str]) -> None:
        """Forget what was fatal, and is none of these."""
        if not self._fatal.issubset(keys):
            self._fatal.intersection_update(keys)
            self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        temporary = self._path.with_suffix(".new")
        try:
            temporary.write_bytes(msgspec.json.encode([*self._fatal, *self._begun]))
            temporary.replace(self._path)
        except OSError as error:  # it is imported nevertheless: hardly any import hangs
            log.warning("what is imported cannot be noted in %s: %s", self._path, error)


def _read(path: Path) -> list[str]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[str])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("what was imported last cannot be read from %s: %s", path, error)
        return []
