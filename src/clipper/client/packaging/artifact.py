"""An artifact: a tar whose bytes depend only on its content, named by its SHA-256.

Equal models have equal digests, so a model that the server already has is not sent again.
"""

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from clipper.api.schemas import MAX_ARTIFACT_BYTES, MAX_MEMBERS
from clipper.errors import InvalidArgument, TooLarge
from clipper.values.types import Framework, Loader

_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an artifact.

    Attributes:
        name: its path in the artifact.
        source: its bytes, or the file that has them.
    """

    name: str
    source: Path | bytes
    is_program: bool = False

    @property
    def size_bytes(self) -> int:
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size


@dataclass(frozen=True, slots=True)
class Loading:
    """The fields of ``Deployment`` that say how an artifact is loaded."""

    loader: Loader
    target: str
    data: str | None = None
    framework: Framework | None = None
    requirements: str | None = None
    needs: tuple[str, ...] = ()


LOADING = tuple(field.name for field in fields(Loading))


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents(Loading):
    """The files of an artifact, and the way to load it."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact(Loading):
    """A packed model in a temporary file. The end of the ``with`` block removes the file.

    Attributes:
        path: the uncompressed tar.
        digest: its SHA-256 in lower-case hex.
        sources: the user's files that are in it.
        source: the address that its model was fetched from, with the digest of the content; None if the model was
            local.
        warning: what the deploying user should know about the fetched files.
    """

    path: Path
    digest: str
    size_bytes: int
    sources: tuple[Path, ...] = ()
    source: str | None = None
    warning: str | None = None

    @property
    def deployed(self) -> dict[str, Any]:
        """Return the fields of a ``Deployment`` that describe this artifact, by name."""
        return {"artifact": self.digest, "source": self.source} | {name: getattr(self, name) for name in LOADING}

    def __enter__(self) -> "Artifact":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.path.unlink(missing_ok=True)

    def chunks(self) -> Iterator[bytes]:
        """Yield the tar in pieces of at most 1 MiB, so that it is never in memory as a whole."""
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk


def pack(contents: Contents) -> Artifact:
    """Write the contents' tar to a temporary file. Raises TooLarge if together the files have more than
    ``MAX_ARTIFACT_BYTES``, or there are more than ``MAX_MEMBERS``; InvalidArgument if a file cannot be read, or the
    temporary file cannot be written.
    """
    if len(contents.members) > MAX_MEMBERS:
        raise TooLarge(f"the model has {len(contents.members)} files: expected at most {MAX_MEMBERS}")
    size_bytes = sum(member.size_bytes for member in contents.members)
    if size_bytes > MAX_ARTIFACT_BYTES:
        raise TooLarge(f"the model has {size_bytes} bytes: expected at most {MAX_ARTIFACT_BYTES}")
    with tempfile.NamedTemporaryFile(prefix="clipper-", suffix=".tar", delete=False) as file:
        path = Path(file.name)
        try:
            # GNU's format takes files over 8 GiB, and writes only the fields that are set here.
            with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
                for member in sorted(contents.members, key=lambda m: m.name):
                    _add(tar, member)
            file.flush()
            with path.open("rb") as packed:
                digest = hashlib.file_digest(packed, "sha256").hexdigest()
        except BaseException as error:  # also ^C: a model may have many gigabytes
            path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise InvalidArgument(f"cannot pack the model: {error}") from error
            raise
    sources = tuple(member.source for member in contents.members if isinstance(member.source, Path))
    loading = {name: getattr(contents, name) for name in LOADING}
    return Artifact(path=path, digest=digest, size_bytes=path.stat().st_size, sources=sources, **loading)


def _add(tar: tarfile.TarFile, member: Member) -> None:
    header = tarfile.TarInfo(member.name)
    header.size = member.size_bytes
    header.mode = 0o755 if member.is_program else 0o644
    if isinstance(member.source, bytes):
        tar.addfile(header, io.BytesIO(member.source))
        return
    with member.source.open("rb") as source:
        tar.addfile(header, source)
