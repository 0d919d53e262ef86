"""Records as lines: whatever they contain, one record is one line, and a JSON object where that is asked for."""

import json
import logging
import sys
from pathlib import Path

import pytest

from clipper.base.log_format import FIELDS, JsonFormatter, TextFormatter, one_line, utc

EVIL = "digits\n2026-05-01T12:00:00.000Z INFO clipper: forged\r\x1b[2J\x85\u2028\u2029\x00end"


def record(message: str, *arguments: object) -> logging.LogRecord:
    made = logging.LogRecord("clipper.worker", logging.WARNING, __file__, 1, message, arguments, None)
    made.created = 1777636800.25
    return made


def failed(message: str) -> logging.LogRecord:
    made = record("it failed")
    try:
        raise ValueError(message)
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_time_is_utc_with_milliseconds() -> None:
    assert utc(1777636800.25) == "2026-05-01T12:00:00.250Z"
    assert utc(0) == "1970-01-01T00:00:00.000Z"


def test_text_has_time_level_logger_and_message() -> None:
    line = TextFormatter().format(record("%s is away", "digits"))
    assert line == "2026-05-01T12:00:00.250Z WARNING clipper.worker: digits is away"


def test_json_has_the_fields_that_the_record_has() -> None:
    values = {"model": "m", "version": 2, "file": Path("/a"), "error": ValueError("odd"), "pid": None, "other": 1}
    about = {"replica": "m:2#1.g3", "worker": None}
    said = json.loads(JsonFormatter(about).format(record("%(model)s is away", values)))
    assert said == {
        "time": "2026-05-01T12:00:00.250Z",
        "level": "warning",
        "logger": "clipper.worker",
        "message": "m is away",
        "model": "m",
        "version": 2,
        "file": "/a",
        "error": "odd",
        "replica": "m:2#1.g3",
    }


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=["text", "json"])
def test_a_record_is_one_line_whatever_it_contains(formatter: logging.Formatter) -> None:
    line = formatter.format(record("cannot reach %(model)s", dict.fromkeys(FIELDS, EVIL)))
    assert line.splitlines() == [line]
    assert line.isprintable()


def test_json_keeps_what_text_escapes() -> None:
    assert json.loads(JsonFormatter().format(record("%s", EVIL)))["message"] == EVIL


def test_no_line_of_a_traceback_looks_like_a_record() -> None:
    lines = TextFormatter().format(failed(EVIL)).splitlines()
    assert lines[0] == "2026-05-01T12:00:00.250Z WARNING clipper.worker: it failed"
    assert len(lines) > 3 and all(line.startswith("    ") for line in lines[1:])
    said = json.loads(JsonFormatter().format(failed("first\nsecond")))
    assert said["exception"].startswith("Traceback") and said["exception"].endswith("ValueError: first\nsecond")


def test_tabs_and_other_scripts_stay() -> None:
    assert one_line("a\tb é 数") == "a\tb é 数"
