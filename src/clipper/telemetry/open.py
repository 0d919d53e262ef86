"""Opens what sends spans, whose libraries are an extra."""

from collections.abc import Mapping

from clipper.errors import InvalidArgument
from clipper.extras import has_otel
from clipper.telemetry.exporter import Exporter


def open_exporter(endpoint: str | None, instance: str, environ: Mapping[str, str]) -> Exporter | None:
    """Return what sends spans to an OTLP receiver; None if there is no endpoint.

    Args:
        endpoint: the receiver's URL, without the path of a signal.
        instance: names this process among those of the service.
        environ: has OpenTelemetry's variables.

    Raises:
        InvalidArgument: the extra is not installed, or a variable names a file that cannot be used.
    """
    if endpoint is None:
        return None
    if not has_otel():
        raise InvalidArgument("spans need the extra otel: pip install 'clipper-serving[otel]'")
    from clipper.telemetry.otlp_sender import OtlpSender

    return Exporter(OtlpSender(endpoint, instance, environ))
