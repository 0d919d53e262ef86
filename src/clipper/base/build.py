"""Identifies the code of a process: processes that an earlier version of Clipper started may run other code."""

import hashlib
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from clipper import __version__

PACKAGE = Path(__file__).parents[1]
_DIGITS = 12
# Git answers in milliseconds. A clone on a network disk that does not answer must not delay a command.
_GIT_WITHIN_S = 2.0
_CODE = {".py", ".so"}


def form() -> str:
    """Return whether this interpreter imports the query path ``compiled`` or as ``pure Python``."""
    spec = find_spec("clipper.worker.frontend.http.connection")
    return "pure Python" if spec is None or str(spec.origin).endswith(".py") else "compiled"


def commit() -> str:
    """Return the commit that was built, such as ``commit 60f60525``; empty if it is not known.

    ``-dirty`` at the end means that files were changed. ``scripts/build_hook.py`` writes the commit into wheels and
    source archives. In a clone, this asks git.
    """
    try:
        found = (PACKAGE / "COMMIT").read_text()
    except OSError:
        clone = PACKAGE.parents[1]
        if not (clone / ".git").exists():  # git would answer for a clone around this folder
            return ""
        asked = ["git", "-C", str(clone), "describe", "--always", "--exclude=*", "--abbrev=8", "--dirty"]
        try:
            told = subprocess.run(asked, check=False, capture_output=True, encoding="ascii", timeout=_GIT_WITHIN_S)
        except (OSError, ValueError, subprocess.SubprocessError):
            return ""
        found = told.stdout.strip()
    return f"commit {found}" if found else ""


def build_id(files: Sequence[str] = (".",)) -> str:
    """Return Clipper's version and a digest of its source, such as ``1.0.0+3f2a91c04b7e``.

    The digest of compiled code differs from that of its source. ``files`` are the paths, inside the package, of the
    modules and folders that count.
    """
    digest = hashlib.sha256()
    parts = [PACKAGE / file for file in files]
    below = {found for part in parts for found in part.rglob("*") if found.suffix in _CODE}
    for path in sorted({*below, *(part for part in parts if part.is_file())}):
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes() + b"\0")
    return f"{__version__}+{digest.hexdigest()[:_DIGITS]}"
