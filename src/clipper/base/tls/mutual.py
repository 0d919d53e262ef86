"""TLS between processes of Clipper: both ends show certificates of one authority."""

import ssl
from dataclasses import dataclass

from clipper.base.tls.material import TlsMaterial, nameless
from clipper.base.tls.trust import NO_CHECK_TIME


@dataclass(frozen=True, slots=True)
class Contexts:
    """The TLS contexts of a process: ``listening`` for accepted connections, ``dialling`` for those that it opens."""

    listening: ssl.SSLContext
    dialling: ssl.SSLContext


def make_contexts(material: TlsMaterial) -> Contexts:
    """Make contexts that trust only the authority, and accept any name in the other end's certificate.

    The caller has to check the name and the time: OpenSSL does not report the name in a certificate that it refuses.
    Raises ssl.SSLError or ValueError if the pair or the authority cannot be used.
    """
    assert material.client_ca is not None, "there is an authority"
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # A connection that resumed an earlier session would skip the certificates.
    listening.num_tickets = 0
    dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    dialling.check_hostname = False
    for context in (listening, dialling):
        # Both ends run Clipper of about the same version.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= NO_CHECK_TIME
        context.load_verify_locations(cadata=material.client_ca.decode("ascii"))
        with nameless(material.certificate) as certificate, nameless(material.key) as key:
            context.load_cert_chain(certificate, key)
    return Contexts(listening, dialling)
