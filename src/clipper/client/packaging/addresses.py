"""Addresses of models in stores: reads them from a text, hides their secrets, and selects a store's files to fetch."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from clipper.errors import InvalidArgument

# The extra that each scheme needs; None if Clipper needs none.
EXTRAS: Mapping[str, str | None] = {
    "https": None, "http": None, "s3": "s3", "gs": "gs", "az": "az", "abfs": "az", "hf": "hf", "oci": None,
    "models": "mlflow", "runs": "mlflow",
}  # fmt: skip
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):/")
_PIN = re.compile(r"sha256=([0-9a-f]{64})")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Files that are pickles, or hold pickles: loading such a file runs its author's code.
_PICKLES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
_SAFE_WEIGHTS = ".safetensors"
_HUB = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+?))?(?:/(?P<file>[^@]+))?")


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a model in a store.

    Attributes:
        text: the address by which it is fetched. It may contain a password or a signature.
        shown: the address without its password and query, for people and records.
        sha256: the digest that the content must have; None if none is given.
    """

    scheme: str
    text: str
    shown: str
    sha256: str | None

    @property
    def name(self) -> str:
        """The last part of its path, by which a framework's files are recognised."""
        return PurePosixPath(urlsplit(self.shown).path).name


def read_address(text: str) -> Address | None:
    """Read an address; None if the text is none. Raises InvalidArgument if it is one that cannot be fetched."""
    found = _SCHEME.match(text)
    if found is None:
        return None
    scheme = found[1]
    if scheme not in EXTRAS:
        known = ", ".join(f"{one}:/…" if extra == "mlflow" else f"{one}://…" for one, extra in EXTRAS.items())
        raise InvalidArgument(f"addresses that begin with {scheme}: are not known: expected a path, or {known}")
    bare, _, fragment = text.partition("#")
    pin = _PIN.fullmatch(fragment)
    if fragment and pin is None:
        raise InvalidArgument("the address ends with # and no digest: expected #sha256= and 64 of 0-9 and a-f")
    try:
        parts = urlsplit(bare)
        host = parts.hostname or ""
    except ValueError as error:
        raise InvalidArgument(f"the address is malformed: {error}") from error
    if (not parts.path.strip("/") and not host) or PurePosixPath(parts.path).name == "..":
        raise InvalidArgument(f"the address {scheme}: names no model")
    if scheme == "http" and pin is None and host not in LOOPBACK:
        raise InvalidArgument(
            "over http:// others can replace the model on its way: expected https://, or the content's digest after "
            "the address, #sha256=…"
        )
    # In addresses of a hub and of a registry, an @ names a revision.
    shown = bare if scheme in ("hf", "models", "runs") else f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return Address(scheme, bare, shown, pin[1] if pin else None)


def pinned(address: str, digest: str) -> str:
    """Return an address that fetches exactly this content, or fails."""
    return f"{address}#sha256={digest}"


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder that of its lines ``SHA256  NAME``, as ``sha256sum`` writes, sorted."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    names = sorted(one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_file())
    lines = "".join(f"{digest_of(path / name)}  {name}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def read_hub(address: Address) -> tuple[str, str | None, str | None]:
    """Return repository, revision and file of ``hf://ORG/MODEL[@REVISION][/FILE]``. Raises InvalidArgument."""
    found = _HUB.fullmatch(address.text.removeprefix("hf://").strip("/"))
    if found is None:
        raise InvalidArgument(f"{address.shown} is malformed: expected hf://ORG/MODEL, with @REVISION and /FILE or not")
    return found[1], found[2], found["file"]


def read_model_version(address: Address) -> tuple[str, str]:
    """Return the name and ``VERSION``, ``latest`` or ``@ALIAS`` of ``models:/…``. Raises InvalidArgument."""
    name, at, alias = address.text.removeprefix("models:/").strip("/").partition("@")
    name, _, version = (name, "", "") if at else name.rpartition("/")
    if not name or not (alias if at else version):
        raise InvalidArgument(f"{address.shown} is malformed: expected models:/NAME/VERSION or models:/NAME@ALIAS")
    return name, f"@{alias}" if at else version


def worth_fetching(names: Mapping[str, int]) -> dict[str, int]:
    """Return the files of a repository to fetch, with their sizes: without pickled weights if there are safe ones."""
    has_safe = any(name.endswith(_SAFE_WEIGHTS) for name in names)
    return {
        name: size
        for name, size in names.items()
        if not name.startswith(".") and not (has_safe and name.endswith(_PICKLES))
    }


def pickle_warning(path: Path, address: str) -> str | None:
    """Return a warning about fetched files that run code when they are loaded; None if there is no such file."""
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    found = [one.name for one in files if one.name.lower().endswith(_PICKLES)]
    if not found:
        return None
    return (
        f"{found[0]} is a pickle: to load it runs whatever code its author put there, so deploy it only if you trust "
        f"{address}; ONNX, safetensors and the files of XGBoost and LightGBM hold no code"
    )
