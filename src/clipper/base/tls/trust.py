"""The servers that a client trusts, and the certificate that it shows."""

import ssl
from pathlib import Path

from msgspec import Struct

from clipper.errors import InvalidArgument, Unavailable


class Trust(Struct, frozen=True):
    """
    Attributes:
        pinned: a file with the only trusted certificate, whatever name it is for; it takes precedence over ``ca``.
        ca: a file of certificate authorities; None means those of the system.
        certificate, key: files of the client's own pair; the certificate's file may contain the key.
    """

    pinned: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class ClientTls:
    """The context of a client, made on first use: without TLS no file is read."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._context: ssl.SSLContext | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """Raises InvalidArgument if a file of the user's cannot be used; Unavailable for the pinned certificate."""
        if self._context is None:
            self._context = _context(self._trust)
        return self._context

    def renew(self) -> None:
        """Also trust the certificate that the pinned file holds now. Raises Unavailable if it cannot be read."""
        if self._trust.pinned is not None:
            _pin(self.context, self._trust.pinned)


# OpenSSL's X509_V_FLAGNO_CHECK_TIME, for which Python has no name.
NO_CHECK_TIME = 0x200000
_OLDEST = ssl.TLSVersion.TLSv1_2


def pinned_context(certificate: str) -> ssl.SSLContext:
    """Return the context of a client that trusts this PEM alone, for any name. Raises ssl.SSLError or ValueError."""
    context = _pinning()
    context.load_verify_locations(cadata=certificate)
    return context


def _pinning() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = _OLDEST
    # The certificate itself is compared, not its name: clients connect to the server by an address.
    context.check_hostname = False
    # The pinned certificate ends the chain: trust in its signers would include other servers.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    # An expired certificate is still that server's; clipper status shows the expiry to the operator.
    context.verify_flags |= NO_CHECK_TIME
    return context


def _context(trust: Trust) -> ssl.SSLContext:
    if trust.pinned is not None:
        context = _pinning()
        _pin(context, trust.pinned)
    else:
        try:
            context = ssl.create_default_context(cafile=None if trust.ca is None else str(trust.ca))
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(
                f"{trust.ca} cannot be used as certificate authorities: {error}; expected certificates in PEM"
            ) from error
    context.minimum_version = _OLDEST
    if trust.certificate is not None:
        try:
            context.load_cert_chain(trust.certificate, trust.key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(
                f"{trust.certificate} with key {trust.key or 'in it'} cannot be used as a client's certificate: {error}"
            ) from error
    return context


def _pin(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise Unavailable(
            f"{path}, the certificate of this home's server, cannot be read: {error}; run this as the server's user, "
            "or give --url and CLIPPER_CA"
        ) from error
