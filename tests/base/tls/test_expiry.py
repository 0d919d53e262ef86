"""When certificates expire, and when that is told."""

import ssl
import tempfile
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from clipper.base.tls.expiry import SERVER, WARN_BEFORE_S, expires_at, expiry_problem
from tests.certificates import DAYS, Authority

with tempfile.TemporaryDirectory() as _folder:
    DER = ssl.PEM_cert_to_DER_cert(
        Authority(Path(_folder)).issue("server").certificate.read_text().partition("-----END")[0]
        + "-----END CERTIFICATE-----"
    )


@pytest.mark.parametrize("days", [-1.0, 0.0, 13.0, DAYS - 1, DAYS + 1, 365 * 40.0])
def test_the_first_that_expires_of_a_chain_counts(tmp_path: Path, days: float) -> None:
    chain = Authority(tmp_path).issue("server", days=days).certificate.read_bytes()
    ends = [one.not_valid_after_utc.timestamp() for one in x509.load_pem_x509_certificates(chain)]
    assert len(ends) == 2
    assert expires_at(chain) == min(ends)


@given(st.binary(max_size=40))
def test_what_is_no_certificate_tells_nothing(junk: bytes) -> None:
    chain = b"-----BEGIN CERTIFICATE-----\n" + junk + b"\n-----END CERTIFICATE-----"
    assert expires_at(chain) is None
    assert expires_at(junk) is None


@given(st.data())
def test_one_that_is_garbled_raises_nothing(data: st.DataObject) -> None:
    der = bytearray(DER)
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    expires_at(ssl.DER_cert_to_PEM_cert(bytes(der[: data.draw(st.integers(1, len(der)))])).encode())


def test_it_is_told_from_14_days_before() -> None:
    def told(expires_at_s: float | None, now_s: float = 0.0) -> str:
        return expiry_problem(SERVER, expires_at_s, now_s) or ""

    assert told(None) == told(WARN_BEFORE_S + 1) == ""
    assert "the TLS certificate expires in 14 days (1970-01-15 00:00 UTC)" in told(WARN_BEFORE_S)
    assert "expires in 5 hours" in told(5 * 3600.0)
    assert "has expired" in told(100.0, 100.0)
