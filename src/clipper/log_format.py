"""What Clipper's own processes write to their logs: one line for each record, as text or as a JSON object.

Names of models, paths and headers come from others, and so do errors of what they send. Whatever a record contains, it
is one line: control characters and line ends are escaped. The lines of a traceback follow as lines that are indented;
in JSON they are in ``exception``.
"""

import json
import logging
import re
from datetime import UTC, datetime

# What a record may say of its subject, by ``extra`` of the call that logs it.
FIELDS = ("application", "model", "version", "replica", "query_id", "request_id")

# What ends a line for some reader, or steers a terminal. A tab does neither.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def set_up(log_format: str, level: str) -> None:
    """Let this process's records of at least ``level`` go to standard error, as ``text`` or ``json``."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])


def one_line(text: str) -> str:
    """The text with its control characters and line ends as escapes, e.g. a line feed as ``\\n``."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def utc(seconds: float) -> str:
    """A time in seconds since 1970, in ISO 8601 with milliseconds: ``2026-05-01T12:00:00.250Z``."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class TextFormatter(logging.Formatter):
    """``TIME LEVEL LOGGER: MESSAGE``."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{utc(record.created)} {record.levelname} {record.name}: {one_line(record.getMessage())}"
        return "\n    ".join([line, *map(one_line, _traceback(self, record))])


class JsonFormatter(logging.Formatter):
    """An object with ``time``, ``level``, ``logger``, ``message``, and those of ``FIELDS`` that the record has."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, object] = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        said |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if traceback := _traceback(self, record):
            said["exception"] = "\n".join(traceback)
        # ASCII: no reader takes an escape for the end of a line.
        return json.dumps(said, default=str)


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    text = formatter.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
    stack = formatter.formatStack(record.stack_info) if record.stack_info else ""
    return [line for part in (text, stack) if part for line in part.split("\n")]
