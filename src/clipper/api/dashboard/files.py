"""The dashboard's files, as the management port serves them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

STATIC = Path(__file__).parent / "static"
# The path of the dashboard. Its pages use relative paths to the API, so that a proxy may serve both under another path.
ROOT = "/dashboard/"
_INDEX = "index.html"
# Browsers refuse a script or style of another type.
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}


class File(Struct, frozen=True):
    """A file to be served. ``etag`` changes with the content, and has its quotation marks."""

    content: bytes
    media_type: str
    etag: str


def read_files(folder: Path = STATIC) -> Mapping[str, File]:
    """Read all files below ``folder``, by the path that they are served at: some 300 KB.

    Only these paths are served, so no path leads out of the folder.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            name = path.relative_to(folder).as_posix()
            found[ROOT + name] = File(content, _MEDIA_TYPES[path.suffix], etag)
    found[ROOT] = found.pop(ROOT + _INDEX)
    return found
