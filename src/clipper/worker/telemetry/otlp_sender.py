"""Sends spans by OTLP over HTTP. Only ``exporter.py`` imports this, where the extra is installed.

The receiver's headers, certificate and compression come from OpenTelemetry's own variables, such as
``OTEL_EXPORTER_OTLP_HEADERS``.
"""

import gzip
import ssl
import threading
from collections.abc import Mapping, Sequence

import httpx

from clipper.errors import InvalidArgument, Unavailable
from clipper.worker.telemetry.otlp import encode, read_pairs, resource_of
from clipper.worker.telemetry.spans import Span

# The timeout of a message. Spans may be dropped meanwhile: a receiver that needs longer is too slow anyway.
TIMEOUT_S = 5.0
# A receiver that restarts is away for a moment: the statuses by which it says so, and the waits before further
# attempts.
TRANSIENT = frozenset({429, 502, 503, 504})
RETRY_AFTER_S = (0.5, 1.0, 2.0)
# The bytes of a refusal that are shown.
_SHOWN_BYTES = 200


class OtlpSender:
    """Sends spans by OTLP; see ``exporter.Sender``."""

    def __init__(self, endpoint: str, instance: str, environ: Mapping[str, str]) -> None:
        """Make a sender. Raises InvalidArgument if a variable names a file that cannot be used."""
        headers = {"content-type": "application/x-protobuf", "user-agent": "OTel-OTLP-Exporter-Clipper"}
        headers |= {name.lower(): value for name, value in read_pairs(_variable(environ, "HEADERS")).items()}
        self._resource = resource_of(instance, environ)
        self._compresses = _variable(environ, "COMPRESSION") == "gzip"
        if self._compresses:
            headers["content-encoding"] = "gzip"
        self._url = f"{endpoint}/v1/traces"
        is_tls = endpoint.startswith("https:")
        self._client = httpx.Client(
            # Bytes, since a variable may have any text, and httpx would raise for text that is not ASCII.
            headers=[(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in headers.items()],
            timeout=TIMEOUT_S,
            trust_env=False,
            verify=_context(environ) if is_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            # A receiver may close a kept connection, and a message a second gains nothing from keeping one.
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._is_closing = threading.Event()

    def send(self, spans: Sequence[Span], began_s: float) -> None:
        body = encode(spans, began_s, self._resource)
        if self._compresses:
            body = gzip.compress(body, compresslevel=1)
        for wait_s in (*RETRY_AFTER_S, None):
            status, said = self._post(body)
            if 200 <= status < 300:
                return
            if wait_s is None or status not in TRANSIENT or self._is_closing.wait(wait_s):
                raise Unavailable(f"the receiver answered {status}: {said!r}" if status else said)

    def _post(self, body: bytes) -> tuple[int, str]:
        """Post a message; return the answer's status and beginning, or 0 and why there is none."""
        try:
            answer = self._client.post(self._url, content=body)
        except httpx.HTTPError as error:
            return 0, f"no answer from {self._url}: {type(error).__name__}: {error}"
        return answer.status_code, answer.content[:_SHOWN_BYTES].decode("utf-8", "replace")

    def close(self) -> None:
        self._is_closing.set()


def _variable(environ: Mapping[str, str], name: str) -> str:
    """Return the variable for traces, or else for all signals; empty if there is neither."""
    return environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or environ.get(f"OTEL_EXPORTER_OTLP_{name}") or ""


def _context(environ: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=_variable(environ, "CERTIFICATE") or None)
        if certificate := _variable(environ, "CLIENT_CERTIFICATE"):
            context.load_cert_chain(certificate, _variable(environ, "CLIENT_KEY") or None)
        return context
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(
            f"OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE or _CLIENT_KEY names a file that cannot be used: "
            f"{error}; expected files in PEM"
        ) from error
