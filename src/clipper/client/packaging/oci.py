"""Repositories of OCI registries: resolves an address to a manifest, and lists the files that ``oras push`` stored."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import httpx
import msgspec

from clipper.client.packaging.addresses import LOOPBACK, Address
from clipper.client.packaging.web import check_status, web_client
from clipper.errors import InvalidArgument, Unavailable

_ADDRESS = re.compile(
    r"(?P<host>[^/@]+)/(?P<repository>[a-z0-9._/-]+)(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ACCEPTED = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
# Registries accept no larger manifests.
_MOST_BYTES = 4 * 1024 * 1024
# The annotation by which ORAS, as a program and as a Python library, marks the tar of a folder.
_TITLE, _IS_FOLDER = "org.opencontainers.image.title", "io.deis.oras.content.unpack"
_FOLDER_TYPE, _TAR_NAMES = "application/vnd.oci.image.layer.v1.tar+gzip", (".gz", ".tgz")
_PART = re.compile(r'(\w+)="([^"]*)"')


class Layer(msgspec.Struct):
    """A layer of a manifest; one without a name is no file. ``is_folder``: it is a tar of a folder with this name."""

    digest: str
    size_bytes: int = msgspec.field(name="size")
    annotations: dict[str, str] | None = None
    media_type: str = msgspec.field(default="", name="mediaType")

    @property
    def name(self) -> str:
        return (self.annotations or {}).get(_TITLE, "")

    @property
    def is_folder(self) -> bool:
        is_tar = self.media_type == _FOLDER_TYPE and not self.name.endswith(_TAR_NAMES)
        return is_tar or (self.annotations or {}).get(_IS_FOLDER) == "true"


class _Manifest(msgspec.Struct):
    layers: tuple[Layer, ...] | None = None


class Repository:
    """A repository, and the manifest that one address means in it.

    Attributes:
        name: the last part of its name.
        is_pinned: whether the address has a digest, so that it always means the same.
    """

    def __init__(self, address: Address) -> None:
        """Raises InvalidArgument if the address is malformed."""
        found = _ADDRESS.fullmatch(address.text.removeprefix("oci://"))
        if found is None:
            raise InvalidArgument(f"{address.shown} is malformed: expected oci://HOST/REPOSITORY:TAG or @sha256:DIGEST")
        self._address, self._host, self._repository = address, found["host"], found["repository"]
        self._digest: str | None = found["digest"]
        self._reference = found["digest"] or found["tag"] or "latest"
        scheme = "http" if self._host.partition(":")[0] in LOOPBACK else "https"
        self._url = f"{scheme}://{self._host}/v2/{self._repository}"
        self._web = Address(scheme, self._url, address.shown, None)
        self.name, self.is_pinned = self._repository.rpartition("/")[2], self._digest is not None

    def pinned(self, digest: str) -> str:
        return f"oci://{self._host}/{self._repository}@{digest}"

    def manifest(self) -> tuple[str, list[Layer]]:
        """Return the manifest's digest and files. Raises NotFound, Unavailable; InvalidArgument if it has no files."""
        shown = self._address.shown
        content, _ = self._ask("GET", f"{self._url}/manifests/{self._reference}", {"Accept": _ACCEPTED})
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if self._digest not in (None, digest):
            raise Unavailable(f"the registry sent another manifest than {self._digest}: try again")
        try:
            layers = msgspec.json.decode(content, type=_Manifest).layers or ()
        except ValueError as error:
            raise Unavailable(f"the registry's answer for {shown} is no manifest: {error}") from error
        found = [layer for layer in layers if layer.name]
        if not found or not all(_DIGEST.fullmatch(layer.digest) for layer in found):
            raise InvalidArgument(
                f"{shown} has no files with names: expected what `oras push` makes, and not a container's image or an "
                "index of several manifests"
            )
        return digest, found

    def blob(self, layer: Layer) -> tuple[Address, str]:
        """Return where a file is, and a fresh Authorization for it: tokens expire within minutes."""
        url = f"{self._url}/blobs/{layer.digest}"
        _, authorization = self._ask("HEAD", url, {})
        return replace(self._web, text=url), authorization

    def _ask(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[bytes, str]:
        """Return a body, and the Authorization that was needed for it."""
        with web_client(self._web) as client:
            status, content, challenge = _read(client, method, url, headers)
            authorization = ""
            if status == 401:
                authorization = self._authorization(client, challenge)
                status, content, _ = _read(client, method, url, {**headers, "Authorization": authorization})
        check_status(self._address, status)
        if status != 200:
            raise Unavailable(f"the registry answers {status} for {self._address.shown}")
        return content, authorization

    def _authorization(self, client: httpx.Client, challenge: str) -> str:
        """Return the Authorization that a registry demands: a token, or a name and a password."""
        kind, _, rest = challenge.partition(" ")
        own = os.environ.get("HTTP_AUTHORIZATION") or self._login()
        if kind.lower() != "bearer":
            return own
        said = dict(_PART.findall(rest))
        realm = httpx.URL(said.pop("realm", ""))
        if realm.scheme != "https" and realm.host not in LOOPBACK:
            raise Unavailable(f"the registry of {self._address.shown} gives tokens at {realm}, without encryption")
        asked = {name: said[name] for name in ("service", "scope") if name in said}
        url = str(realm.copy_merge_params(asked))
        status, content, _ = _read(client, "GET", url, {"Authorization": own} if own else {})
        check_status(self._address, status)
        told = json.loads(content) if status == 200 else {}
        return f"Bearer {told.get('token') or told.get('access_token')}"

    def _login(self) -> str:
        """Return the login that ``docker login`` or ``oras login`` stored for the registry; empty if there is none."""
        folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
        try:
            auth = json.loads((folder / "config.json").read_bytes())["auths"][self._host]["auth"]
            base64.b64decode(auth, validate=True)
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        return f"Basic {auth}"


def _read(client: httpx.Client, method: str, url: str, headers: Mapping[str, str]) -> tuple[int, bytes, str]:
    """Return status, body and challenge of an answer. Raises Unavailable for a body that never ends."""
    with client.stream(method, url, headers=dict(headers)) as answer:
        content = b""
        for piece in answer.iter_bytes():
            content += piece
            if len(content) > _MOST_BYTES:
                raise Unavailable(f"the registry at {answer.url.host} sends over {_MOST_BYTES} bytes for a manifest")
        return answer.status_code, content, answer.headers.get("www-authenticate", "")
