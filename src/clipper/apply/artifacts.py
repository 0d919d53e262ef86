"""Writes the artifacts of a home as the tars that they were sent as, for a file that names them by their digests."""

import shutil
from pathlib import Path

from clipper.errors import InvalidArgument, NotFound
from clipper.home import ARTIFACTS_NAME
from clipper.packaging.artifact import Contents, Member, pack


def write_artifact(home: Path, sha256: str, folder: Path) -> None:
    """Write ``SHA256.tar`` into ``folder``, unless it is there.

    Raises:
        NotFound: the home does not have the artifact.
        InvalidArgument: it was not packed by Clipper, so its tar cannot be made again; or a file cannot be written.
    """
    source, target = home / ARTIFACTS_NAME / sha256, folder / f"{sha256}.tar"
    if target.exists():
        return
    if not source.is_dir():
        raise NotFound(f"the artifact {sha256} is not in {home}: run this on the server's machine, as its user")
    # The files of an artifact are sealed: a file that can be written, such as one of Python's caches, came later.
    members = tuple(
        Member(path.relative_to(source).as_posix(), path, is_program=bool(mode & 0o100))
        for path in source.rglob("*")
        if path.is_file() and not (mode := path.stat().st_mode) & 0o222
    )
    # How it is loaded is not in the tar.
    with pack(Contents(members, "file", "")) as artifact:
        if artifact.digest != sha256:
            raise InvalidArgument(
                f"the artifact {sha256} was packed by another program: deploy its model from its own file"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Only a whole file has the name.
            partial = target.with_suffix(".partial")
            shutil.copyfile(artifact.path, partial)
            partial.replace(target)
        except OSError as error:
            raise InvalidArgument(f"{target} cannot be written: {error.strerror or error}") from error
