"""A server's certificate, key and client authorities: read, checked and made into a context.

A pair is checked as a whole when it is read, and passed on as bytes. So a worker that starts while the files are being
replaced, or after they were replaced by wrong files, gets the pair that the other workers have.
"""

import os
import re
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NoReturn

from msgspec import Struct
from msgspec.structs import replace

from clipper.errors import InvalidArgument

# The modes of TLS on the query port. Workers of different modes cannot share the port.
TlsMode = Literal["off", "server", "mutual"]

# A chain of certificates is some KB, a bundle of all public authorities 250 KB.
MAX_FILE_BYTES = 1024 * 1024
# The protocols under TLS: of the query port and the management port, and of the gRPC port.
Alpn = Literal["http/1.1", "h2"]

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
# OpenSSL's names for the error that a key belongs to another certificate; the last if the key is of another kind.
_MISMATCH = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----")


class TlsPaths(Struct, frozen=True):
    """The files that an operator names, in PEM. If ``client_ca`` is None, clients need no certificate."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


class TlsMaterial(Struct, frozen=True):
    """The content of the files. Its repr never shows the content, because that includes the key."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None = None

    def __repr__(self) -> str:
        return f"TlsMaterial({'mutual' if self.client_ca else 'server'})"


def read_material(paths: TlsPaths) -> TlsMaterial:
    """Read a pair and check that a server can use it.

    Raises InvalidArgument if a file is missing, cannot be read or has other content, or if the key is encrypted or
    belongs to another certificate.
    """
    material = TlsMaterial(
        _read("--tls-cert", paths.certificate, _CERTIFICATE, "certificate"),
        _read("--tls-key", paths.key, _KEY, "private key"),
        _read("--tls-client-ca", paths.client_ca, _CERTIFICATE, "certificate") if paths.client_ca else None,
    )
    try:
        server_context(replace(material, client_ca=None))
    except _Encrypted:
        raise InvalidArgument(
            f"--tls-key {paths.key} is encrypted, and a server cannot ask for its password: decrypt it, with mode 0600 "
            "(openssl pkey -in FILE -out NEW)"
        ) from None
    except ssl.SSLError as error:
        if error.reason in _MISMATCH:
            raise InvalidArgument(
                f"--tls-key {paths.key} is not the key of the certificate in --tls-cert {paths.certificate}: expected "
                "the pair as it was issued, with the server's own certificate first and those that signed it after it"
            ) from error
        raise InvalidArgument(
            f"--tls-cert {paths.certificate} with --tls-key {paths.key} cannot be used: {error.reason or error}"
        ) from error
    try:
        server_context(material)
    except ssl.SSLError as error:
        raise InvalidArgument(f"--tls-client-ca {paths.client_ca} cannot be used: {error.reason or error}") from error
    return material


def server_context(material: TlsMaterial, alpn: Alpn = "http/1.1") -> ssl.SSLContext:
    """Return a server's context. Raises ssl.SSLError if the pair cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Each renegotiation costs the server a handshake.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([alpn])
    # OpenSSL reads pairs only from files, so these are files in memory, without a name.
    with nameless(material.certificate) as certificate, nameless(material.key) as key:
        context.load_cert_chain(certificate, key, password=_refuse)
    if material.client_ca is not None:
        context.load_verify_locations(cadata=material.client_ca.decode("ascii", "ignore"))
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def own_certificate(material: TlsMaterial) -> bytes:
    """Return the first certificate, which is the server's own; its signers' follow it."""
    found = _CERTIFICATE.search(material.certificate)
    assert found is not None
    return found[0] + b"\n"


class _Encrypted(Exception):
    pass


def _refuse() -> NoReturn:
    raise _Encrypted


def _read(option: str, path: Path, expected: "re.Pattern[bytes]", what: str) -> bytes:
    try:
        # A server that opens a pipe would wait until somebody writes into it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidArgument(f"{option} {path} is not a file: expected one with a {what} in PEM")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidArgument(f"{option} {path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES or not expected.search(data):
        raise InvalidArgument(f"{option} {path} holds no {what}: expected one in PEM, of at most 1 MiB")
    return data


@contextmanager
def nameless(data: bytes) -> Iterator[str]:
    """Give a path through which only this process can read the data, while the block runs."""
    descriptor = os.memfd_create("pem")
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"
