"""Identifies the code that a process runs: one that an earlier supervisor started may run other code than ours."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from clipper import __version__

PACKAGE = Path(__file__).parent
_DIGITS = 12


def build_id(files: Sequence[str] = (".",)) -> str:
    """Clipper's version, and a digest of its source, such as ``0.1.0+3f2a91c04b7e``: two of one version may differ.

    Args:
        files: those that count: paths of modules and folders inside the package.
    """
    digest = hashlib.sha256()
    for path in sorted({found for part in files for found in _modules(PACKAGE / part)}):
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes() + b"\0")
    return f"{__version__}+{digest.hexdigest()[:_DIGITS]}"


def _modules(path: Path) -> list[Path]:
    return [path] if path.is_file() else list(path.rglob("*.py"))
