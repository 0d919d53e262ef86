"""The ids of the shared stores that a home has known, in files of the home."""

from contextlib import suppress
from pathlib import Path


class Known:
    """Remembers which registry, or store of learned state, a server has known at an address.

    An empty registry has lost all applications, and a server that led with it would end them. An empty store would
    take feedback that is lost when an operator restores the store's data. ``path`` is a file of the home;
    without it nothing is kept for the next start.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._kept: tuple[str, str] | None = None

    def read(self, address: str) -> str:
        """Return the known id of the registry or store at this address; empty if none is known."""
        if self._kept is None:
            try:
                text = "" if self._path is None else self._path.read_text()
            except (OSError, UnicodeDecodeError):
                text = ""
            kept, _, id_ = text.strip().rpartition(" ")
            self._kept = kept, id_
        return self._kept[1] if self._kept[0] == address else ""

    def write(self, address: str, id_: str) -> None:
        if not id_ or self.read(address) == id_:
            return
        self._kept = address, id_
        if self._path is not None:
            # If this fails, the next start knows no id, like a first start.
            with suppress(OSError):
                self._path.write_text(f"{address} {id_}\n")

    def read_again(self, address: str) -> str:
        """Return the same as ``read``, from the file: an operator may have removed it to begin anew."""
        if self._path is not None:
            self._kept = None
        return self.read(address)
