"""Notes which user code a worker is importing, for the worker that replaces it.

Code that holds the interpreter's lock during its import blocks the whole process, and code that crashes ends it; then
nobody in the process can report it. So the import is noted before it begins, and the note is removed afterwards.
"""

import logging
from collections.abc import Collection
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)


class ImportNotes:
    """A file that outlives its worker. The applications of one snapshot bound its size."""

    def __init__(self, path: Path | None) -> None:
        """``path`` is the same for a worker and its replacement; None keeps no notes."""
        self._path = path
        self._fatal = set(_read(path)) if path is not None else set()
        self._begun: list[str] = []

    def was_fatal(self, key: str) -> bool:
        """Whether an earlier worker ended while it imported the code behind ``key``."""
        return key in self._fatal

    def begin(self, key: str) -> None:
        self._begun.append(key)
        self._write()

    def end(self, key: str) -> None:
        self._begun.remove(key)
        self._write()

    def keep(self, keys: Collection[str]) -> None:
        """Forget fatal code that is not among ``keys``."""
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
        except OSError as error:  # import it nevertheless: hardly any import hangs
            log.warning(
                "cannot note which code is being imported in %(file)s: %(error)s", {"file": self._path, "error": error}
            )


def _read(path: Path) -> list[str]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[str])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        log.warning(
            "cannot read which code was being imported from %(file)s: %(error)s", {"file": path, "error": error}
        )
        return []
