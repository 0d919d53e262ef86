"""The certificate authority of a server's control channel: it signs certificates of its workers and supervisors only.

Anyone with its key can pose as a supervisor to all workers on nodes, so the key stays where the registry is. This needs
``cryptography``, which the extra ``ray`` brings.
"""

import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from clipper.base.tls.material import TlsMaterial
from clipper.control.identity import PeerName
from clipper.errors import InvalidArgument

# An operator replaces an authority by removing its key; its expiry plays no role.
_AUTHORITY_VALID = datetime.timedelta(days=3650)
# How long a stolen key stays usable. A worker that no supervisor can reach for this long is started again.
VALID = datetime.timedelta(days=30)
# Clocks of machines differ.
_EARLIER = datetime.timedelta(days=1)
_PEM = serialization.Encoding.PEM
_BOTH_ENDS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


def make_authority(now: datetime.datetime) -> bytes:
    """Make an authority; return its key and its certificate, in PEM. ``now`` has a time zone, here and below."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("clipper control authority")
    builder = _builder(name, name, key.public_key(), now, _AUTHORITY_VALID)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    return _private(key) + builder.sign(key, hashes.SHA256()).public_bytes(_PEM)


def make_request() -> tuple[bytes, bytes]:
    """Make a key, which stays on its machine, and the request to sign a certificate for it; both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    # The authority chooses the name; the request cannot.
    request = x509.CertificateSigningRequestBuilder(_name("-")).sign(key, hashes.SHA256())
    return _private(key), request.public_bytes(_PEM)


class Authority:
    """The authority. ``certificate``: in PEM, for every process that has to trust its signatures."""

    def __init__(self, pem: bytes) -> None:
        """Read what ``make_authority`` has returned. Raises InvalidArgument if it is anything else."""
        try:
            key = serialization.load_pem_private_key(pem, None)
            self._own = x509.load_pem_x509_certificate(pem)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InvalidArgument(f"the control channel's authority cannot be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self._own.public_key():
            raise InvalidArgument("the control channel's authority is damaged: its key is not that of its certificate")
        self._key = key
        self.certificate = self._own.public_bytes(_PEM)

    def sign(self, request: bytes, name: PeerName, now: datetime.datetime) -> bytes:
        """Return a certificate of this name, in PEM, for the key of the request.

        Raises InvalidArgument if it is no request of ``make_request``, or its sender does not have the key.
        """
        try:
            read = x509.load_pem_x509_csr(request)
            key, is_signed = read.public_key(), read.is_signature_valid
        except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
            raise InvalidArgument(f"{name} sent a request for a certificate that cannot be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1) or not is_signed:
            raise InvalidArgument(f"expected the request of {name} for a key on P-256, signed by it, got another")
        builder = _builder(_name(str(name)), self._own.subject, key, now, VALID)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True).add_extension(_BOTH_ENDS, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(_PEM)

    def issue(self, name: PeerName, now: datetime.datetime) -> TlsMaterial:
        """Make a key with its certificate, for this process."""
        key, request = make_request()
        return TlsMaterial(self.sign(request, name, now), key, self.certificate)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    valid: datetime.timedelta,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    return builder.not_valid_before(now - _EARLIER).not_valid_after(now + valid)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
