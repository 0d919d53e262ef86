"""The certificate of one container, made where it runs, so that its key is nowhere else."""

import datetime
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# Callers compare the certificate itself, and heed neither its name nor its time.
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clipper container")])
_VALID = datetime.timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a container's front shows. ``certificate`` is in PEM, for its callers; ``context`` has the key."""

    certificate: str
    context: ssl.SSLContext


def make_identity() -> Identity:
    """Make a new key, and sign a certificate with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(_NAME, _NAME, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + _VALID)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python reads a key only from a file. The folder is closed to others, and is gone after the reading.
    with tempfile.TemporaryDirectory(prefix="clipper-") as folder:
        path = Path(folder) / "pair.pem"
        path.write_bytes(private + certificate)
        context.load_cert_chain(path)
    return Identity(certificate.decode(), context)
