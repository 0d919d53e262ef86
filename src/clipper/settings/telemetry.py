"""The settings of logs and traces, which the server and its workers share."""

from typing import Annotated, Literal

from msgspec import Struct

from clipper.settings.fields import Setting
from clipper.settings.texts import read_endpoint

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

# To trace a request costs a worker as much as several queries. One in a hundred shows where the time goes.
TRACE_SHARE = 0.01
# A day: no query lives for longer.
MOST_SLOW_QUERY_MS = 86_400_000


class TelemetrySettings(Struct, frozen=True, kw_only=True):
    """What a server and its workers write about themselves and about requests."""

    log_format: Annotated[LogFormat, Setting("How the server, its workers and its containers write their logs.")] = (
        "text"
    )
    log_level: Annotated[LogLevel, Setting("The least level of what these logs contain.")] = "info"
    access_log: Annotated[
        float,
        Setting("Share of requests that the access log contains; 1 is all, 0 is no access log.", least=0, most=1),
    ] = 0.0
    slow_query_ms: Annotated[
        float | None,
        Setting(
            "The slow-query log contains queries that took longer than this.",
            least=0,
            most=MOST_SLOW_QUERY_MS,
            default="no such log",
        ),
    ] = None
    otlp_endpoint: Annotated[
        str | None,
        Setting(
            "Where spans are sent, by OTLP over HTTP, e.g. http://localhost:4318. It needs the extra otel.",
            metavar="URL",
            default="no spans",
            read=read_endpoint,
        ),
    ] = None
    trace_share: Annotated[
        float,
        Setting(
            "Share of the requests without a traceparent that are traced. A traceparent says it for its request.",
            least=0,
            most=1,
        ),
    ] = TRACE_SHARE
