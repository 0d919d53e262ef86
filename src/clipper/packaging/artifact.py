"""An artifact: a tar whose bytes depend on its content alone, named by its SHA-256.

Equal models give equal digests, so a model that the server has already is not sent again.
"""

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from clipper.errors import InvalidArgument, TooLarge
from clipper.types import Framework, Loader

# What the server takes; asked here too, before anything is written.
MAX_ARTIFACT_BYTES = 16 * 1024**3
MAX_MEMBERS = 100_000

_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an artifact: its name inside, where its bytes are, and whether it is a program to run."""

    name: str
    source: Path | bytes
    is_program: bool = False

    @property
    def size_bytes(self) -> int:
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into an artifact and how it is loaded; all but the first are fields of ``Deployment``."""

    members: tuple[Member, ...]
    loader: Loader
    target: str
    data: str | None = None
    framework: Framework | None = None
    requirements: str | None = None
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Artifact:
    """A packed model in a temporary file, which leaving the ``with`` block removes.

    Attributes:
        path: the uncompressed tar.
        digest: its SHA-256 in lower-case hex.
    """

    path: Path
    digest: str
    size_bytes: int
    loader: Loader
    target: str
    data: str | None
    framework: Framework | None = None
    requirements: str | None = None
    needs: tuple[str, ...] = ()

    def __enter__(self) -> "Artifact":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.path.unlink(missing_ok=True)

    def chunks(self) -> Iterator[bytes]:
        """The tar in pieces of at most 1 MiB, so that sending it never holds it whole."""
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk


def pack(contents: Contents) -> Artifact:
    """Write the contents' tar to a temporary file.

    Raises:
        TooLarge: the files together are over ``MAX_ARTIFACT_BYTES``, or more than ``MAX_MEMBERS``.
        InvalidArgument: a file cannot be read, or the temporary file cannot be written.
    """
    if len(contents.members) > MAX_MEMBERS:
        raise TooLarge(f"the model has {len(contents.members)} files: expected at most {MAX_MEMBERS}")
    size_bytes = sum(member.size_bytes for member in contents.members)
    if size_bytes > MAX_ARTIFACT_BYTES:
        raise TooLarge(f"the model has {size_bytes} bytes: expected at most {MAX_ARTIFACT_BYTES}")
    with tempfile.NamedTemporaryFile(prefix="clipper-", suffix=".tar", delete=False) as file:
        path = Path(file.name)
        try:
            _write(contents.members, file)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise InvalidArgument(f"cannot pack the model: {error}") from error
    return Artifact(
        path,
        _digest(path),
        path.stat().st_size,
        contents.loader,
        contents.target,
        contents.data,
        contents.framework,
        contents.requirements,
        contents.needs,
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(members: Iterable[Member], file: IO[bytes]) -> None:
    # GNU's format takes files over 8 GiB, and writes nothing but what _add sets.
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for member in sorted(members, key=lambda m: m.name):
            _add(tar, member)


def _add(tar: tarfile.TarFile, member: Member) -> None:
    header = tarfile.TarInfo(member.name)
    header.size = member.size_bytes
    header.mode = 0o755 if member.is_program else 0o644
    if isinstance(member.source, bytes):
        tar.addfile(header, io.BytesIO(member.source))
        return
    with member.source.open("rb") as source:
        tar.addfile(header, source)
