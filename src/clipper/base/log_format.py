"""The format of the logs of Clipper's own processes: one line for each record, as text or as a JSON object.

A call of the log names the values of its message: ``log.warning("%(path)s is lost: %(error)s", {"path": …,
"error": …})``. In JSON they are fields beside the message.

Names of models, paths and headers come from strangers. So control characters and line ends are escaped: a record is one
line whatever it contains. The lines of a traceback follow, indented; in JSON they are in ``exception``.
"""

import json
import logging
import re
from collections.abc import Mapping
from datetime import datetime, timezone

# The fields that a record may have beside its message. docs/logs-and-traces.md says what each is.
FIELDS = (
    *("application", "model", "version", "replica", "worker"),
    *("error", "reason"),
    *("process", "pid", "container", "image", "artifact", "file", "task", "command", "policy", "batch_id", "epoch"),
    *("address", "management_url", "query_url", "grpc_address", "method", "path", "input_type", "runtime"),
    *("rows", "count", "limit", "replicas", "replicas_before", "duration_ms", "wait_s"),
)
# Python 3.10, which models may run on, does not have the newer name ``datetime.UTC``.
_UTC = timezone.utc  # noqa: UP017

# Characters that end a line for some reader, or that steer a terminal. A tab does neither.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def set_up(log_format: str, level: str) -> None:
    """Let this process's records of at least ``level`` go to standard error, as ``text`` or ``json``."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])


def one_line(text: str) -> str:
    """Return the text with its control characters and line ends escaped, e.g. a line feed as ``\\n``."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def utc(seconds: float) -> str:
    """Write a time in seconds since 1970 in ISO 8601 with milliseconds: ``2026-05-01T12:00:00.250Z``."""
    return datetime.fromtimestamp(seconds, _UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class TextFormatter(logging.Formatter):
    """``TIME LEVEL LOGGER: MESSAGE``."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{utc(record.created)} {record.levelname} {record.name}: {one_line(record.getMessage())}"
        return "\n    ".join([line, *map(one_line, _traceback(self, record))])


class JsonFormatter(logging.Formatter):
    """Writes an object with ``time``, ``level``, ``logger``, ``message``, and the record's fields of ``FIELDS``."""

    def __init__(self, about: Mapping[str, object] | None = None) -> None:
        """Add the fields ``about`` to each record, except for those that are None."""
        super().__init__()
        self._about = _known(about or {})

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, object] = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        said |= self._about
        if isinstance(record.args, Mapping):
            said |= _known(record.args)
        if traceback := _traceback(self, record):
            said["exception"] = "\n".join(traceback)
        # ASCII: no reader takes an escape for the end of a line.
        return json.dumps(said)


def _known(values: Mapping[str, object]) -> dict[str, object]:
    """Return the values of ``FIELDS`` that are present. Numbers stay numbers; all else becomes text."""
    return {
        name: value if isinstance(value, (int, float)) else str(value)
        for name in FIELDS
        if (value := values.get(name)) is not None
    }


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    text = formatter.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
    stack = formatter.formatStack(record.stack_info) if record.stack_info else ""
    return [line for part in (text, stack) if part for line in part.split("\n")]
