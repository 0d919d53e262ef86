"""Fetches models from stores onto the machine of the deploying user.

The server itself fetches nothing: it would use its own rights, for any address that a caller of its API gives, and
would need the deployer's credentials. Fetched files are cached for a week: an interrupted download resumes from the
cache, and ``clipper apply``, which packs a model twice, fetches it once.
"""

import hashlib
import os
import shutil
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import httpx

from clipper.api.schemas import MAX_ARTIFACT_BYTES, MAX_MEMBERS
from clipper.base.masking import masked
from clipper.base.trees import remove_tree
from clipper.client.packaging import addresses
from clipper.client.packaging.addresses import EXTRAS, Address
from clipper.client.packaging.oci import Repository
from clipper.client.packaging.revisions import check_tracking, hub_info, listed_files, mark, mlflow_version, revision_of
from clipper.client.packaging.web import STALL_TIMEOUT_S, check_status, web_client
from clipper.errors import ClipperError, InvalidArgument, NotFound, TooLarge, Unavailable
from clipper.settings.home import take_lock

Report = Callable[[str], None]

CHUNK_BYTES = 8 * 1024 * 1024
# An interrupted download is resumed this often at once; after that the deploying user decides.
TRIES = 4
# The stores' libraries would draw progress bars of their own.
_QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
# A server that sends less than this in a second is given up after ``STALL_TIMEOUT_S``: a few bytes now and then are no
# stall for a socket's timeout, and would block ``--follow`` for ever.
LEAST_BYTES_PER_S = 1024
# Another command may fetch the same model, of gigabytes.
TURN_TIMEOUT_S = 1800.0
# Fetched files that no command has used for this long are removed.
_KEPT_S = 7 * 24 * 3600.0
_ENVIRONMENT = threading.RLock()


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model that was fetched.

    Attributes:
        path: its file or folder.
        source: its address with the digest of its content and, of a hub or a registry, its revision.
        warning: what the deploying user should know; None if there is nothing.
    """

    path: Path
    source: str
    warning: str | None


@dataclass(frozen=True, slots=True)
class Fetch:
    """The arguments of a store's function. ``cache`` is the folder for downloads."""

    address: Address
    cache: Path
    report: Report

    def folder(self, revision: str) -> Path:
        """Return the folder for this address's files of a revision, made if it is missing."""
        key = hashlib.sha256(f"{self.address.text}\n{revision}".encode()).hexdigest()[:32]
        self.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self.cache / key
        folder.mkdir(mode=0o700, exist_ok=True)
        os.utime(folder)
        return folder

    def check_size(self, files: int, size_bytes: int) -> None:
        """Raise TooLarge if this is too much for an artifact."""
        if files > MAX_MEMBERS or size_bytes > MAX_ARTIFACT_BYTES:
            raise TooLarge(
                f"{self.address.shown} has {files} files of {size_bytes} bytes: expected at most {MAX_MEMBERS} files "
                f"and {MAX_ARTIFACT_BYTES} bytes"
            )

    def check_room(self, files: int, size_bytes: int) -> None:
        """Raise TooLarge if this is too much for an artifact, or for this disk, which also gets the packed model."""
        self.check_size(files, size_bytes)
        self.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (free := shutil.disk_usage(self.cache).free) < size_bytes:
            raise TooLarge(
                f"{self.address.shown} has {size_bytes} bytes, and {self.cache} has {free} left: name another folder "
                "with CLIPPER_CACHE"
            )


def fetch(address: Address, credentials: Mapping[str, str], report: Report) -> Fetched:
    """Fetch a model.

    Args:
        credentials: environment variables that the store's library reads, besides those that are set.
        report: called with texts about the progress.

    Raises:
        InvalidArgument: an extra is missing, or the content has not the digest that the address says.
        NotFound: the store does not have it.
        TooLarge: it exceeds an artifact's bounds, or the disk.
        Unavailable: the store is down, refuses, or does not send what it says. The fetched part is kept for a retry.
    """
    cache = cache_folder()
    remove_old(cache, time.time())
    report(f"fetching {address.shown}")
    fetched = Fetch(address, cache, report)
    with _asking(address, credentials, "fetched"), _alone(fetched):
        path, pinned = _STORES[address.scheme](fetched)
    digest = addresses.digest_of(path)
    if address.sha256 not in (None, digest):
        raise InvalidArgument(f"{address.shown} has the digest {digest}: expected {address.sha256}")
    return Fetched(path, addresses.pinned(pinned, digest), addresses.pickle_warning(path, address.shown))


def look(address: Address, credentials: Mapping[str, str]) -> str:
    """Return a text that changes with the content of an address, which is not fetched.

    Raises as ``fetch``, and InvalidArgument if the content never changes, or its store does not tell.
    """
    with _asking(address, credentials, "looked at"):
        return revision_of(address)


@contextmanager
def _alone(fetch: Fetch) -> Iterator[None]:
    """Let one command at a time fetch an address: two would write into the same files."""
    descriptor = os.open(fetch.folder(""), os.O_RDONLY)
    try:
        if not take_lock(descriptor, 0.0):
            fetch.report(f"waiting for another command that fetches {fetch.address.shown}")
            if not take_lock(descriptor, TURN_TIMEOUT_S):
                raise Unavailable(
                    f"another command has fetched {fetch.address.shown} for {TURN_TIMEOUT_S:.0f} s: try again after it"
                )
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _asking(address: Address, credentials: Mapping[str, str], done: str) -> Iterator[None]:
    """Ask a store through its library, with these credentials. Errors become ours, without the credentials."""
    extra = EXTRAS[address.scheme]
    if extra is not None and find_spec(_LIBRARIES[address.scheme]) is None:
        raise InvalidArgument(f"{address.scheme}: needs an extra: pip install 'clipper-serving[{extra}]'")
    hidden = [*credentials.values(), address.text.removeprefix(address.shown)]
    with _set(_QUIET | dict(credentials)):
        try:
            yield
        except ClipperError:
            raise
        except FileNotFoundError as error:
            raise NotFound(f"there is no {address.shown}") from error
        except Exception as error:  # each library has its own errors
            text = masked(" ".join(str(error).replace(address.text, address.shown).split()), hidden)
            raise Unavailable(f"{address.shown} cannot be {done}: {type(error).__name__}: {text:.500}") from error


def cache_folder() -> Path:
    named, shared = os.environ.get("CLIPPER_CACHE"), os.environ.get("XDG_CACHE_HOME")
    root = Path(named) if named else Path(shared or "~/.cache").expanduser() / "clipper"
    return root / "downloads"


@contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within the block: libraries of stores read credentials there.

    Other threads wait for its end. Their libraries would read the same variables, and send them to other stores.
    """
    with _ENVIRONMENT:
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def remove_old(cache: Path, now_s: float) -> None:
    """Remove downloads that nobody has asked for in a week."""
    for folder in cache.glob("*/"):
        with suppress(OSError):
            if now_s - folder.stat().st_mtime > _KEPT_S:
                remove_tree(folder)


def _from_web(fetch: Fetch) -> tuple[Path, str]:
    """Fetch a file over HTTP. A download with a revision and a length resumes after an interruption."""
    address = fetch.address
    download, failure = _WebDownload(fetch), ""
    with web_client(address) as client:
        for _ in range(TRIES):
            try:
                if (path := download.go_on(client)) is not None:
                    return path, address.shown
                failure = f"it sent {download.size_bytes} bytes of {download.total_bytes}"
            except httpx.TransportError as error:
                failure = f"{type(error).__name__}: {error}"
            except TooLarge:
                download.drop()
                raise
            finally:
                if not download.revision:  # it cannot be resumed
                    download.drop()
    raise Unavailable(f"{address.shown} cannot be fetched: {failure}; try again to go on where it broke off")


class _WebDownload:
    """The download of a file. ``revision`` is the server's name of the content; empty if it gives none."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self.revision = ""
        self.total_bytes: int | None = None
        self.partial: Path | None = None

    @property
    def size_bytes(self) -> int:
        return self.partial.stat().st_size if self.partial is not None and self.partial.exists() else 0

    def drop(self) -> None:
        if self.partial is not None:
            self.partial.unlink(missing_ok=True)

    def go_on(self, client: httpx.Client) -> Path | None:
        """Fetch the missing part. Return the whole file; None if its length is not what the server announced."""
        have = self.size_bytes
        ranged = {"Range": f"bytes={have}-", "If-Range": self.revision} if have else {}
        with client.stream("GET", self._fetch.address.text, headers=ranged) as answer:
            have = self._check(answer, have)
            folder = self._fetch.folder(self.revision or os.urandom(16).hex())
            whole = folder / (self._fetch.address.name or "model")
            self.partial = whole.with_name(f"{whole.name}.partial")
            if self.revision and whole.exists():
                return whole
            if not ranged and self.revision and 0 < self.size_bytes < (self.total_bytes or 0):
                return self.go_on(client)  # an earlier command left a part of it
            began_s = time.monotonic()
            with self.partial.open("ab" if have else "wb") as file:
                for chunk in answer.iter_raw():  # each chunk as it comes, so that an interruption loses nothing
                    file.write(chunk)
                    took_s = time.monotonic() - began_s
                    if took_s > STALL_TIMEOUT_S and file.tell() - have < LEAST_BYTES_PER_S * took_s:
                        raise Unavailable(
                            f"{self._fetch.address.shown} cannot be fetched: it sent {file.tell() - have} bytes in "
                            f"{took_s:.0f} s; try again to go on where it broke off"
                        )
                    self._fetch.check_size(1, file.tell())
                    if self.total_bytes is None:  # with a length, the room was checked before
                        self._fetch.check_room(1, file.tell())
        if self.total_bytes is not None and self.size_bytes != self.total_bytes:
            return None
        self.partial.rename(whole)
        return whole

    def _check(self, answer: httpx.Response, have: int) -> int:
        """Return how many of the downloaded bytes stay valid: 0 if the server sends everything again."""
        shown, status = self._fetch.address.shown, answer.status_code
        check_status(self._fetch.address, status)
        if status == 416 or status >= 500:
            raise httpx.ReadError(f"the server answers {status}")
        if status not in (200, 206):
            raise Unavailable(f"{shown} cannot be fetched: the server answers {status}")
        revision = answer.headers.get("etag") or answer.headers.get("last-modified") or ""
        # A weak ETag does not promise equal bytes.
        revision = "" if revision.startswith("W/") else revision
        length = answer.headers.get("content-length", "")
        total = int(length) + (have if status == 206 else 0) if length.isdecimal() else None
        if have and (revision != self.revision or total != self.total_bytes):
            raise Unavailable(f"{shown} has changed while it was fetched: try again")
        self.revision, self.total_bytes = revision, total
        have = have if status == 206 else 0
        self._fetch.check_size(1, total or 0)
        self._fetch.check_room(1, max(0, (total or 0) - have))
        return have


def _from_files(fetch: Fetch) -> tuple[Path, str]:
    """Fetch a file or a folder of an object store through its file system of fsspec."""
    system, files = listed_files(fetch.address)
    marks = {name: mark(info) for name, info in files.items()}
    fetch.check_room(len(files), sum(info["size"] for info in files.values()))
    target = fetch.folder(repr(sorted(marks.items()))) / fetch.address.name
    for name, info in files.items():
        _check_inside(name)
        fetch.report(f"fetching {name or fetch.address.shown}")
        _copy(system, info["name"], info["size"], target / name if name else target)
    if {name: mark(info) for name, info in listed_files(fetch.address)[1].items()} != marks:
        remove_tree(target.parent)
        raise Unavailable(f"{fetch.address.shown} has changed while it was fetched: try again")
    return target, fetch.address.shown


def _check_inside(name: str) -> None:
    """Refuse a file name that would lead outside the folder."""
    if ".." in PurePosixPath(name).parts or name.startswith("/"):
        raise Unavailable(f"the store has a file {name!r:.100}, which is not below the model's folder")


def _copy(system: Any, source: str, size_bytes: int, target: Path) -> None:
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    for tries_left in reversed(range(TRIES)):
        try:
            # No cache: each read requests exactly these bytes.
            with partial.open("ab") as file, system.open(source, "rb", cache_type="none") as opened:
                opened.seek(file.tell())
                while chunk := opened.read(CHUNK_BYTES):
                    file.write(chunk)
            break
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            if not tries_left:
                raise
    if (found := partial.stat().st_size) != size_bytes:
        partial.unlink()
        raise Unavailable(f"the store sent {found} bytes of {source}, and says that it has {size_bytes}")
    partial.rename(target)


def _from_hub(fetch: Fetch) -> tuple[Path, str]:
    """Fetch a file or all files of a commit of a model on the hub, checked by the hub's digests."""
    hub = import_module("huggingface_hub")
    repository, _, file = addresses.read_hub(fetch.address)
    info = hub_info(fetch.address, with_files=True)
    there = {one.rfilename: one for one in info.siblings or ()}
    if file is not None and file not in there:
        raise NotFound(f"{repository} has no file {file}: it has {', '.join(sorted(there)[:10])}")
    sizes = {name: one.size or 0 for name, one in there.items()}
    chosen = addresses.worth_fetching(sizes) if file is None else {file: sizes[file]}
    fetch.check_room(len(chosen), sum(chosen.values()))
    folder = fetch.folder(info.sha) / repository.replace("/", "--")
    for name in chosen:
        _check_inside(name)
        fetch.report(f"fetching {name}")
        path = Path(hub.hf_hub_download(repository, name, revision=info.sha, local_dir=folder))
        kept = there[name].lfs
        if kept is not None and addresses.digest_of(path) != kept.sha256:
            path.unlink()
            raise Unavailable(f"the hub sent {name} with another digest than it announced: try again")
    remove_tree(folder / ".cache")  # which is not part of the model
    pinned = f"hf://{repository}@{info.sha}"
    return (folder, pinned) if file is None else (folder / file, f"{pinned}/{file}")


def _from_oci(fetch: Fetch) -> tuple[Path, str]:
    """Fetch the files of a manifest of an OCI registry, each checked by its digest: one alone, or a folder of them."""
    repository = Repository(fetch.address)
    digest, layers = repository.manifest()
    fetch.check_room(len(layers), sum(layer.size_bytes for layer in layers))
    folder = fetch.folder(digest) / repository.name
    for layer in layers:
        _check_inside(layer.name)
        target = folder / layer.name
        if target.exists():
            continue
        fetch.report(f"fetching {layer.name}")
        blob, authorization = repository.blob(layer)
        with _set({"HTTP_AUTHORIZATION": authorization} if authorization else {}):
            path, _ = _from_web(Fetch(blob, fetch.cache, fetch.report))
        if f"sha256:{addresses.digest_of(path)}" != layer.digest:
            path.unlink()
            raise Unavailable(f"the registry sent {layer.name} with another digest than it announced: try again")
        target.parent.mkdir(parents=True, exist_ok=True)
        if layer.is_folder:
            _unpack(fetch, path, folder, layer.name)
        else:
            path.rename(target)
    return folder / layers[0].name if len(layers) == 1 else folder, repository.pinned(digest)


def _unpack(fetch: Fetch, tar: Path, folder: Path, name: str) -> None:
    """Unpack a tar whose members are below ``name``, into a folder."""
    making = folder.with_name(f"{folder.name}.making")
    remove_tree(making)
    with tarfile.open(tar) as archive:
        size_bytes = 0
        for number, member in enumerate(archive, 1):
            size_bytes += member.size
            fetch.check_room(number, size_bytes)
        archive.extractall(making, filter="data")  # refuses members that would land outside the folder
    if not (making / name).is_dir():
        raise Unavailable(f"{fetch.address.shown} has a tar for the folder {name} that lacks this folder")
    (making / name).rename(folder / name)
    remove_tree(making)
    tar.unlink()


def _from_mlflow(fetch: Fetch) -> tuple[Path, str]:
    """Fetch a version of MLflow's registry, or an artifact of a run, as a folder."""
    pinned = fetch.address.text
    if fetch.address.scheme == "models":
        pinned = f"models:/{addresses.read_model_version(fetch.address)[0]}/{mlflow_version(fetch.address)}"
    else:
        check_tracking()
    mlflow = import_module("mlflow")
    import_module("mlflow.artifacts")

    def sizes(uri: str) -> Iterator[int]:
        for one in mlflow.artifacts.list_artifacts(artifact_uri=uri):
            if one.is_dir:
                yield from sizes(f"{uri}/{PurePosixPath(one.path).name}")
            else:
                yield one.file_size or 0

    found_sizes = list(sizes(pinned))
    fetch.check_room(len(found_sizes), sum(found_sizes))
    folder = fetch.folder(pinned) / "model"
    remove_tree(folder)
    folder.mkdir()
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=pinned, dst_path=str(folder))), pinned


_STORES: Mapping[str, Callable[[Fetch], tuple[Path, str]]] = {
    "https": _from_web, "http": _from_web, "s3": _from_files, "gs": _from_files, "az": _from_files,
    "abfs": _from_files, "hf": _from_hub, "oci": _from_oci, "models": _from_mlflow, "runs": _from_mlflow,
}  # fmt: skip
_LIBRARIES = {
    "s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "hf": "huggingface_hub", "models": "mlflow",
    "runs": "mlflow",
}  # fmt: skip
