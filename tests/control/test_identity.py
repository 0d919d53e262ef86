"""Certificates of the control channel: what they name, who signs them, and where they are kept."""

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from clipper.base.tls.mutual import make_contexts
from clipper.control.authority import VALID, Authority, make_authority, make_request
from clipper.control.identity import IdentityFile, PeerName, certified_name, read_identity, write_identity
from clipper.errors import InvalidArgument, ProtocolViolation

NOW = datetime.now(UTC).replace(microsecond=0)
WORKER = PeerName("worker", 7)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(make_authority(NOW))


def subject(*names: str) -> dict[str, object]:
    """A certificate as ``getpeercert`` returns it."""
    return {
        "subject": tuple((("commonName", name),) for name in names),
        "notBefore": "Nov 27 00:00:00 2026 GMT",
        "notAfter": "Dec 28 00:00:00 2026 GMT",
    }


VALID_S = ssl.cert_time_to_seconds("Nov 28 00:00:00 2026 GMT")


@pytest.mark.parametrize("name", [PeerName("worker", 0), PeerName("worker", 2**20), PeerName("supervisor", 2**31)])
def test_names_survive(name: PeerName) -> None:
    assert certified_name(subject(str(name)), VALID_S) == name


@pytest.mark.parametrize(
    "names",
    [
        *((), ("",), ("worker",), ("worker/",), ("worker/07",), ("worker/-1",), ("worker/1\n",), ("worker/\u0661",)),
        *(("Worker/1",), ("worker/1/2",), ("supervisor/99999999999",), ("clipper control authority",)),
        *(("worker/1", "worker/1"), ("worker/1", "supervisor/9")),
    ],
)
def test_other_names_are_refused_and_shown(names: tuple[str, ...]) -> None:
    with pytest.raises(ProtocolViolation, match="expected a certificate of supervisor/EPOCH or worker/INSTANCE") as got:
        certified_name(subject(*names), VALID_S)
    assert "\n" not in str(got.value)
    assert all(ascii(name)[1:-1] in ascii(str(got.value)) or "\n" in name for name in names)


def test_a_long_name_is_shown_in_part_and_no_certificate_is_none() -> None:
    with pytest.raises(ProtocolViolation) as got:
        certified_name(subject("x" * 10_000), VALID_S)
    assert len(str(got.value)) < 300
    for nothing in (None, {}):
        with pytest.raises(ProtocolViolation, match="no certificate"):
            certified_name(nothing, VALID_S)


@pytest.mark.parametrize(("day", "is_valid"), [("Nov 26", False), ("Nov 28", True), ("Dec 29", False)])
def test_the_time_counts(day: str, is_valid: bool) -> None:
    now_s = ssl.cert_time_to_seconds(f"{day} 00:00:00 2026 GMT")
    if is_valid:
        assert certified_name(subject("worker/7"), now_s) == WORKER
        return
    with pytest.raises(ProtocolViolation, match="the certificate of worker/7 is valid from Nov 27"):
        certified_name(subject("worker/7"), now_s)


def test_the_authority_chooses_the_name_and_the_time(authority: Authority) -> None:
    key, request = make_request()
    signed = x509.load_pem_x509_certificate(authority.sign(request, WORKER, NOW))
    assert signed.subject.rfc4514_string() == "CN=worker/7"
    assert signed.not_valid_after_utc == NOW + VALID
    assert signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    own = serialization.load_pem_private_key(key, None)
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    assert signed.public_key() == own.public_key()


def test_the_authority_survives_and_a_damaged_one_is_refused() -> None:
    pem, other = make_authority(NOW), make_authority(NOW)
    assert Authority(pem).certificate == Authority(pem).certificate
    key, _, certificate = pem.partition(b"-----BEGIN CERTIFICATE-----")
    mixed = key + b"-----BEGIN CERTIFICATE-----" + other.partition(b"-----BEGIN CERTIFICATE-----")[2]
    for wrong in (b"", b"x", key, b"-----BEGIN CERTIFICATE-----" + certificate, mixed, pem[: len(pem) // 2]):
        with pytest.raises(InvalidArgument, match="authority"):
            Authority(wrong)


def rsa_request() -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "worker/1")])
    key = rsa.generate_private_key(65537, 2048)
    signed = x509.CertificateSigningRequestBuilder(name).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def tampered_request() -> bytes:
    """A request for the key of one, signed with that of another."""
    _, pem = make_request()
    der = bytearray(x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST").encode()


@pytest.mark.parametrize("request_pem", [b"", b"\0" * 9, make_authority(NOW), rsa_request(), tampered_request()])
def test_other_requests_are_refused(authority: Authority, request_pem: bytes) -> None:
    with pytest.raises(InvalidArgument, match="worker/7"):
        authority.sign(request_pem, WORKER, NOW)


def test_an_identity_is_kept_for_this_user_alone(authority: Authority, tmp_path: Path) -> None:
    path, material = tmp_path / "identity.pem", authority.issue(WORKER, NOW)
    before = os.umask(0)
    try:
        for _ in range(2):
            write_identity(path, material)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_identity(path) == material
    assert [each.name for each in tmp_path.iterdir()] == ["identity.pem"]
    assert "PRIVATE" not in repr(material)


def test_a_file_with_something_else_is_refused(authority: Authority, tmp_path: Path) -> None:
    path, material = tmp_path / "identity.pem", authority.issue(WORKER, NOW)
    key, certificate, own = material.key, material.certificate, material.client_ca or b""
    for content in (b"", key, key + certificate, certificate + key + own, key + certificate + own + own, b"\xff" * 99):
        path.write_bytes(content)
        with pytest.raises(InvalidArgument, match="expected a private key, its certificate and the authority's"):
            read_identity(path)
    path.write_bytes(make_request()[0] + certificate + own)  # the key of another certificate
    with pytest.raises(InvalidArgument, match="cannot be used"):
        IdentityFile(path)
    path.unlink()
    with pytest.raises(InvalidArgument, match="cannot be read"):
        IdentityFile(path)


def test_a_replaced_file_is_read_again_and_a_wrong_one_is_not_taken(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    write_identity(path, authority.issue(WORKER, NOW))
    identity = IdentityFile(path)
    first = identity.contexts
    assert identity.contexts is first
    path.write_bytes(b"half a file")
    assert identity.contexts is first
    path.unlink()
    assert identity.contexts is first
    write_identity(path, authority.issue(WORKER, NOW + timedelta(days=20)))
    assert identity.contexts is not first
    assert identity.secured(PeerName("worker", 9)).expects == PeerName("worker", 9)


def test_contexts_trust_the_authority_alone(authority: Authority) -> None:
    contexts = make_contexts(authority.issue(WORKER, NOW))
    for context in (contexts.listening, contexts.dialling):
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.minimum_version == ssl.TLSVersion.TLSv1_3
        assert len(context.get_ca_certs()) == 1
