"""Reads from their DER (RFC 5280, section 4.1) how long certificates are valid, and decides when to warn."""

import re
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

# An operator who renews by hand needs days. Automatic renewal is earlier (Let's Encrypt: 30 days of 90).
WARN_BEFORE_S = 14 * 24 * 3600.0

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_INTEGER, _SEQUENCE, _VERSION = 0x02, 0x30, 0xA0
# A year of two digits means 1950 to 2049; a year of four digits has any value.
_TIMES = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}


def expires_at(chain: bytes) -> float | None:
    """Return when the first certificate of a PEM file expires, in seconds since 1970; None if none can be read.

    All certificates count: a client also refuses a server if a certificate that signed the server's has expired.
    """
    ends = []
    for found in _PEM.findall(chain.decode("ascii", "ignore")):
        with suppress(ValueError, IndexError):
            ends.append(_not_after(ssl.PEM_cert_to_DER_cert(found)))
    return min(ends, default=None)


class Expiring(NamedTuple):
    """A certificate in messages: its name, the consequence of its expiry, and the remedy."""

    name: str
    consequence: str
    remedy: str


SERVER = Expiring("the TLS certificate", "clients that check it refuse the server", "put a renewed pair in its place")
CLIENT_CA = Expiring(
    "a certificate in --tls-client-ca", "clients whose certificates it signed are refused", "put a renewed one there"
)


def expiry_problem(what: Expiring, expires_at_s: float | None, now_s: float) -> str | None:
    """Return the warning about a certificate; None if it is valid for long enough."""
    if expires_at_s is None or expires_at_s - now_s > WARN_BEFORE_S:
        return None
    left_s = expires_at_s - now_s
    when = f"expires in {duration(left_s)}"
    if left_s <= 0:
        when = f"has expired, and {what.consequence}"
    return f"{what.name} {when} ({day(expires_at_s)}): {what.remedy}; no restart is needed"


def duration(seconds: float) -> str:
    """Write a duration as text, e.g. ``40 minutes``, in the largest unit of which there are at least two."""
    for unit_s, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:,.0f} {name}"
    return "1 second" if round(seconds) == 1 else f"{seconds:,.0f} seconds"


def day(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M} UTC"


def _not_after(der: bytes) -> float:
    """Raise ValueError or IndexError if the bytes are not a certificate."""
    start, _ = _inside(der, 0, _SEQUENCE)  # the certificate: its signed part comes first
    at, _ = _inside(der, start, _SEQUENCE)
    if der[at] == _VERSION:
        at = _inside(der, at, _VERSION)[1]
    for kind in (_INTEGER, _SEQUENCE, _SEQUENCE):  # serial number, algorithm, issuer
        at = _inside(der, at, kind)[1]
    at, _ = _inside(der, at, _SEQUENCE)  # the validity: from, to
    at = _inside(der, at, der[at])[1]
    start, end = _inside(der, at, der[at])
    text = der[start:end].decode("ascii")
    return datetime.strptime(text, _TIMES.get(der[at], "")).replace(tzinfo=UTC).timestamp()


def _inside(der: bytes, at: int, kind: int) -> tuple[int, int]:
    """Return where the content of the value at ``at`` begins and ends."""
    if der[at] != kind:
        raise ValueError(f"expected a value of kind {kind:#x} at {at}, got {der[at]:#x}")
    size, start = der[at + 1], at + 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[at + 2 : start])
    if start + size > len(der):
        raise ValueError("a value is longer than what holds it")
    return start, start + size
