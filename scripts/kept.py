"""Where what takes long to fetch or train is kept between runs."""

import hashlib
import os
from pathlib import Path


def folder() -> Path:
    """``$XDG_CACHE_HOME/clipper``, made if it is not there."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base) / "clipper"
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(*parts: str | bytes) -> str:
    """16 hex digits that differ if any part does."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "little") + data)
    return whole.hexdigest()[:16]
