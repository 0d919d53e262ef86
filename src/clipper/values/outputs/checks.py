"""Checks that a container's answers are JSON, with numbers that JSON's readers can hold."""

import re
from collections.abc import Mapping, Sequence

import msgspec

# This check covers the syntax but accepts any bytes inside a string. It also rejects nesting that is too deep for
# msgspec: such nesting would be too deep for most readers, too.
check_json = msgspec.json.Decoder(msgspec.Raw).decode
# That check does not look at the size of numbers, while 1e999 is infinity to most readers. Only a number with an
# exponent of three digits or with 200 digits can be that large, and 200 digits in a row fill one of the blocks. The few
# texts with such digits, maybe in a string, are read in full.
_find_exponent = re.compile(rb"[eE]\+?\d{3}").search
_BLOCK = 100
_LOWER_E, _UPPER_E = b"eE"  # as numbers, which a search finds five times as fast as bytes
_read = msgspec.json.Decoder().decode
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def check_output(text: bytes) -> None:
    """Check a JSON text. Raises UnicodeDecodeError, DecodeError, RecursionError, also for numbers beyond float64."""
    check_characters(text)
    check_json(text)


def read_texts(outputs: Sequence[bytes], failures: Mapping[int, str]) -> Mapping[int, str]:
    """Return the message for each row whose output failed, or is not JSON.

    ``outputs`` has the JSON text of each row, which is empty for the rows in ``failures``.
    """
    if not failures:
        try:
            # Checking the joined outputs is faster than checking each: nearly all outputs are ASCII without exponents,
            # and most batches have short outputs.
            text = b"\n".join(outputs)
            if not text.isascii() or len(text) >= 2 * _BLOCK or _LOWER_E in text or _UPPER_E in text:
                check_characters(text)
            for output in outputs:
                check_json(output)
        except NOT_JSON:
            pass  # rare: the loop below finds the invalid outputs
        else:
            return failures
    found = dict(failures)
    for row, output in enumerate(outputs):
        if row not in found:
            try:
                check_output(output)
            except NOT_JSON as error:
                found[row] = f"the container's output is not JSON: {error}"
    return found


def check_characters(text: bytes) -> None:
    """Check that JSON texts, one a line, are UTF-8 without numbers beyond float64. Raises as ``check_output``."""
    if not text.isascii():
        text.decode()
    if _find_exponent(text) or _has_long_number(text):
        for line in text.split(b"\n"):
            _read(line)


def _has_long_number(text: bytes) -> bool:
    return any(text[start : start + _BLOCK].isdigit() for start in range(0, len(text) - _BLOCK + 1, _BLOCK))
