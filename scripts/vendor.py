"""Fetch the dashboard's libraries into its folder: ``python scripts/vendor.py``.

The versions are below. npm fetches the packages. What is taken of each goes into ``static/vendor``, with its licence,
and ``packages.json`` there records where each file is from and its SHA-256. A test holds the files against that.

A browser resolves ``from "preact"`` only by an inline script, which the dashboard's policy forbids. So such a name
becomes the path of the file. A mention of a source map goes, since there is no map.
"""

import hashlib
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

from msgspec import Struct

VENDOR = Path(__file__).parents[1] / "src" / "clipper" / "dashboard" / "static" / "vendor"
RECORD = VENDOR / "packages.json"


class Package(Struct, frozen=True):
    """``files``: the name of each file in ``static/vendor``, to its path in the package."""

    name: str
    version: str
    licence: str
    files: dict[str, str]


PACKAGES = (
    Package("preact", "11.2.0", "MIT", {"preact.js": "dist/preact.mjs", "preact-hooks.js": "hooks/dist/hooks.mjs"}),
    Package("htm", "3.1.1", "Apache-2.0", {"htm.js": "dist/htm.module.js"}),
    Package("uplot", "1.6.32", "MIT", {"uplot.js": "dist/uPlot.esm.js", "uplot.css": "dist/uPlot.min.css"}),
)
_SOURCE_MAP = re.compile(rb"\n//# sourceMappingURL=\S+\s*$")
_IMPORTS = {b'from"preact"': b'from"./preact.js"'}


def vendored(content: bytes) -> bytes:
    """A package's file as a browser can load it from the dashboard's folder."""
    content = _SOURCE_MAP.sub(b"\n", content)
    for name, path in _IMPORTS.items():
        content = content.replace(name, path)
    return content


def fetch(package: Package, folder: Path) -> dict[str, bytes]:
    """Return the files that are taken of a package, by their names in ``static/vendor``, with its licence."""
    subprocess.run(["npm", "pack", "--silent", f"{package.name}@{package.version}"], cwd=folder, check=True)
    wanted = {**package.files, f"{package.name}.LICENSE.txt": "LICENSE"}
    found = {}
    with tarfile.open(folder / f"{package.name}-{package.version}.tgz") as archive:
        for name, path in wanted.items():
            member = archive.extractfile(f"package/{path}")
            assert member is not None, f"{package.name} {package.version} has no file {path}"
            found[name] = vendored(member.read())
    return found


def main() -> None:
    record = []
    for path in VENDOR.iterdir():
        path.unlink()
    for package in PACKAGES:
        with tempfile.TemporaryDirectory() as folder:
            contents = fetch(package, Path(folder))
        for name, content in contents.items():
            (VENDOR / name).write_bytes(content)
        record.append(
            {
                "name": package.name,
                "version": package.version,
                "licence": package.licence,
                "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
            }
        )
    RECORD.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
