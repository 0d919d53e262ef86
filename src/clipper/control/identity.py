"""The names and certificates of both ends of a control channel over TCP.

Both ends show certificates of one authority, which signs for this channel alone. The name in a certificate states the
role of its owner: ``supervisor/EPOCH`` or ``worker/INSTANCE``.
"""

import logging
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clipper.base.tls.material import TlsMaterial
from clipper.base.tls.mutual import Contexts, make_contexts
from clipper.base.whole_files import stamp, write_whole
from clipper.errors import InvalidArgument, ProtocolViolation

log = logging.getLogger(__name__)

Role = Literal["supervisor", "worker"]

_NAME = re.compile(r"(supervisor|worker)/(0|[1-9][0-9]{0,9})")
_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----\n?", re.DOTALL)
# A key and two certificates are 2 KB.
_MAX_FILE_BYTES = 64 * 1024
# The characters of a certificate's name that go into a log: anybody may have made up the name.
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class PeerName:
    """A name in a certificate. ``number`` is a supervisor's epoch, or a worker's instance."""

    role: Role
    number: int

    def __str__(self) -> str:
        return f"{self.role}/{self.number}"


@dataclass(frozen=True, slots=True)
class Secured:
    """The context with which a worker is dialled over TCP, and the name that its certificate must have."""

    context: ssl.SSLContext
    expects: PeerName


def certified_name(certificate: Mapping[str, Any] | None, now_s: float) -> PeerName:
    """Return the name in a certificate whose signature was checked.

    Args:
        certificate: as ``ssl.SSLObject.getpeercert`` returns it; None if there is none.
        now_s: in seconds since 1970.

    Raises:
        ProtocolViolation: there is no certificate, its name is none of this channel's, or it is not valid at that time.
            The message has the name.
    """
    if not certificate:
        raise ProtocolViolation("it shows no certificate")
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    found = _NAME.fullmatch(names[0]) if len(names) == 1 else None
    if found is None:
        shown = ", ".join(names)[:_SHOWN_CHARACTERS]
        raise ProtocolViolation(f"expected a certificate of supervisor/EPOCH or worker/INSTANCE, got one of {shown!r}")
    name = PeerName("supervisor" if found[1] == "supervisor" else "worker", int(found[2]))
    first_s, last_s = (ssl.cert_time_to_seconds(certificate[key]) for key in ("notBefore", "notAfter"))
    if not first_s <= now_s <= last_s:
        raise ProtocolViolation(
            f"the certificate of {name} is valid from {certificate['notBefore']} to {certificate['notAfter']}, and not "
            "now: check the clocks of both machines; a worker gets a new one when it is started again"
        )
    return name


def write_identity(path: Path, material: TlsMaterial) -> None:
    """Write a key, its certificate and the authority's. Raises OSError if it cannot be written."""
    write_whole(path, [material.key, material.certificate, material.client_ca or b""])


def read_identity(path: Path) -> TlsMaterial:
    """Read the file. Raises InvalidArgument if it cannot be read, or does not have a key and two certificates."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise InvalidArgument(f"the identity {path} cannot be read: {error.strerror}") from error
    parts = [(found[1], found[0]) for found in _PEM.finditer(data)]
    if [kind for kind, _ in parts] != [b"PRIVATE KEY", b"CERTIFICATE", b"CERTIFICATE"]:
        raise InvalidArgument(
            f"expected a private key, its certificate and the authority's in {path}, in PEM and in this order, got "
            f"{', '.join(kind.decode() for kind, _ in parts) or 'nothing of these'}"
        )
    (_, key), (_, certificate), (_, authority) = parts
    return TlsMaterial(certificate, key, authority)


class IdentityFile:
    """A worker's key and certificate, from a file that is replaced before the certificate expires."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises InvalidArgument if it cannot be used."""
        self._path = path
        self._seen = stamp(path)
        self._contexts = self._read()

    @property
    def contexts(self) -> Contexts:
        """Return the TLS contexts of the file's content now, or of the last content that could be used."""
        if (now := stamp(self._path)) != self._seen:
            self._seen = now
            try:
                self._contexts = self._read()
            except InvalidArgument as error:
                log.error("this worker goes on with the certificate that it has: %(error)s", {"error": error})
        return self._contexts

    def secured(self, expects: PeerName) -> Secured:
        return Secured(self.contexts.dialling, expects)

    def _read(self) -> Contexts:
        try:
            return make_contexts(read_identity(self._path))
        except (ssl.SSLError, ValueError) as error:
            raise InvalidArgument(f"the identity {self._path} cannot be used: {error}") from error


def check_peer(tls: ssl.SSLObject | None, expects: PeerName) -> None:
    """Raise ProtocolViolation if the other end is not the one that was dialled."""
    name = certified_name(None if tls is None else tls.getpeercert(), time.time())
    if name != expects:
        raise ProtocolViolation(f"expected the certificate of {expects}, got that of {name}")
