"""Tells when the files of a model have changed, for ``clipper serve --reload``."""

from collections.abc import Iterable
from pathlib import Path

# Modification time in nanoseconds, size and inode: an editor may replace a file by one of the same size.
_Look = tuple[int, int, int] | None


class Watch:
    """Looks at files, and at the folders that they are in, since a change may add a file.

    A change is told once it is over: if two looks in a row see the same. Editors write in steps, and training scripts
    for seconds.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._known: dict[Path, _Look] = {}
        self._last: dict[Path, _Look] = {}
        self.follow(files)

    def follow(self, files: Iterable[Path]) -> None:
        """Look at these files from now on. What has changed of those that were followed before is not forgotten."""
        known = self._known
        paths = {path for file in files for path in (file, file.parent)}
        self._known = {path: known[path] if path in known else _look(path) for path in paths}
        self._last = dict(self._known)

    def has_changed(self) -> bool:
        """Look again. Each change is told once."""
        now = {path: _look(path) for path in self._known}
        is_over, self._last = now == self._last, now
        if now == self._known or not is_over:
            return False
        self._known = now
        return True


def _look(path: Path) -> _Look:
    try:
        found = path.stat()
    except OSError:  # it is gone, or just being replaced
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
