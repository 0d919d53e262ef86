"""The body of a predict call: finds and reads its input, context, version and features."""

import struct
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import msgspec

from clipper.errors import MalformedRequest, WrongInput
from clipper.values.decoding import NOT_JSON
from clipper.values.inputs.json_parts import Extent, find_fields, find_items, find_lone_field
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES
from clipper.values.inputs.number_parser import Parser
from clipper.values.inputs.reader import NumberReader, Reader
from clipper.values.inputs.record_reader import RecordReader, Rows
from clipper.values.inputs.record_rows import check_rows_bytes
from clipper.values.types import MAX_CONTEXT_LENGTH
from clipper.worker.frontend.features import FeaturesReader, check_count, features_text
from clipper.worker.frontend.predict_request import PlainBody, PredictBody, Request

# A client's batch is answered as a whole. More inputs would block the connection for too long, and fill the queue.
MAX_CLIENT_BATCH = 10_000
# The size of the longest context if all of it is escaped.
MAX_FIELD_BYTES = 16 * 1024
# The beginnings of bodies by JSON writers, with and without a space.
_PLAIN_HEADS = frozenset({b'{"input":', b'{"input": '})
# In a body of this size, making Python objects of the numbers takes less time than finding them.
SHORT_BODY_BYTES = 160
# Packers by number of elements: each number takes at least two bytes, with its comma.
_PACK = [struct.Struct(f"<{count}d").pack for count in range(SHORT_BODY_BYTES // 2)]


# The fields with the inputs: one, a list of them, or a list for each field of a record.
_INPUT_FIELDS = ("input", "input_batch", "input_columns")
_EXPECTED_INPUT = 'expected one of "input", "input_batch" and, for records, "input_columns"'
# Bounds of the small fields, as JSON text.
_MOST_BYTES = dict.fromkeys(("context", "uid", "version", "timeout_ms"), MAX_FIELD_BYTES)


class BodyReader:
    """Reads an application's predict bodies, with ``features_size`` features a query; None if it takes none."""

    def __init__(self, reader: Reader, features_size: int | None = None) -> None:
        self._reader = reader
        self._records = reader if isinstance(reader, RecordReader) and features_size is None else None
        self._features = FeaturesReader(features_size)
        self._decode = msgspec.json.Decoder(PredictBody).decode
        self._decode_plain = msgspec.json.Decoder(PlainBody).decode
        self._parser = Parser()
        self._row_bytes = reader.row_bytes if isinstance(reader, NumberReader) else None
        has_plain_way = isinstance(reader, NumberReader) and reader.takes_plain_list and features_size is None
        self._plain_bytes = SHORT_TEXT_BYTES if has_plain_way else -1

    def read_plain(self, body: bytes) -> bytes | None:
        """Return the row of ``{"input": …}``, of numbers or a record, as usually written; None for other forms."""
        size = len(body)
        if self._records is not None and size <= SHORT_TEXT_BYTES:
            return self._records.read_body(body)
        if size > self._plain_bytes:
            return None
        if size > SHORT_BODY_BYTES:
            row = self._read_long(body)
            return row if self._row_bytes is None or row is None or len(row) == self._row_bytes else None
        try:
            numbers = self._decode_plain(body).input
        except (msgspec.DecodeError, UnicodeError):
            return None
        count = len(numbers)
        return _PACK[count](*numbers) if self._row_bytes is None or self._row_bytes == 8 * count else None

    def _read_long(self, body: bytes) -> bytes | None:
        """Read a body whose only content is a flat list of numbers; None if there may be another key."""
        start = body.find(b"[")
        if body[:start] not in _PLAIN_HEADS or body.rfind(b"[") != start or body[-2:] != b"]}":
            return None
        try:
            numbers: Any = self._parser.parse(body[start:-1])
            return bytes(numbers.as_buffer(of_type="d"))
        except (ValueError, TypeError, RuntimeError, AttributeError, KeyError):
            self._parser = Parser()
            return None

    def read_single(self, body: bytes) -> Request | None:
        """Read a single input, in any form, at once; None if there are several. Raises as ``Reader.read``."""
        return self._single(self._parse(body))

    def _single(self, parsed: PredictBody) -> Request | None:
        _check_given(parsed)
        if isinstance(parsed.input, msgspec.UnsetType):
            return None
        features = self._features.read(parsed.features)
        return _request(parsed, [self._reader.read(bytes(parsed.input))], [features], is_batch=False)

    def read(self, body: bytes | bytearray) -> Generator[None, None, Request]:
        """Read a body of any form and size, in steps of a few milliseconds at most. Raises as ``Reader.read``."""
        if len(body) > SHORT_TEXT_BYTES:
            return (yield from self._read_parts(body if isinstance(body, bytearray) else bytearray(body)))
        parsed = self._parse(bytes(body))
        if (single := self._single(parsed)) is not None:
            return single
        if not isinstance(parsed.input_columns, msgspec.UnsetType):
            columns = bytearray(parsed.input_columns)
            rows = yield from self._columns(columns, 0, len(columns))
            return _request(parsed, rows, self._features.read_all(parsed.features, len(rows)), is_batch=True)
        texts = parsed.input_batch
        assert not isinstance(texts, msgspec.UnsetType)
        if not 1 <= len(texts) <= MAX_CLIENT_BATCH:
            raise MalformedRequest(f"input_batch has {len(texts)} inputs: expected 1 to {MAX_CLIENT_BATCH}")
        request = _request(parsed, [], self._features.read_all(parsed.features, len(texts)), is_batch=True)
        size_bytes = 0
        for text in texts:
            row = self._reader.read(bytes(text))
            request.rows.append(row)
            check_rows_bytes(size_bytes := size_bytes + len(row))
            yield
        return request

    def _columns(self, text: bytearray, start: int, stop: int) -> Rows:
        if not isinstance(self._reader, RecordReader):
            raise WrongInput("input_columns are for records, and this application takes none: expected input_batch")
        return (yield from self._reader.read_columns(text, start, stop, MAX_CLIENT_BATCH))

    def _read_parts(self, body: bytearray) -> Generator[None, None, Request]:
        fields = find_lone_field(body) or (yield from find_fields(body, 0, len(body)))
        given = [name for name in _INPUT_FIELDS if name in fields]
        if len(given) != 1:
            raise MalformedRequest(_other_number(given))
        is_batch = given[0] == "input_batch"
        if given[0] == "input_columns":
            small = self._parse(compose(body, fields, _MOST_BYTES))
            rows = yield from self._columns(body, *fields["input_columns"])
            extent = fields.get("features")
            return _request(small, rows, (yield from self._read_features(body, extent, len(rows), True)), is_batch=True)
        if is_batch:
            extents = yield from find_items(body, *fields["input_batch"], MAX_CLIENT_BATCH)
            if not extents:
                count = f"over {MAX_CLIENT_BATCH}" if extents is None else "0"
                raise MalformedRequest(f"input_batch has {count} inputs: expected 1 to {MAX_CLIENT_BATCH}")
        else:
            extents = [fields["input"]]
        features = yield from self._read_features(body, fields.get("features"), len(extents), is_batch)
        request = _request(self._parse(compose(body, fields, _MOST_BYTES)), [], features, is_batch)
        size_bytes = 0
        for start, stop in extents:
            row = yield from read_input(self._reader, body, start, stop)
            request.rows.append(row)
            check_rows_bytes(size_bytes := size_bytes + len(row))
            yield
        return request

    def _read_features(
        self, body: bytearray, extent: Extent | None, count: int, is_batch: bool
    ) -> Generator[None, None, Sequence[bytes | None]]:
        if extent is None or self._features.size is None or not is_batch:
            text = msgspec.UNSET if extent is None else features_text(body, *extent)
            return [self._features.read(text)] * count
        extents = yield from find_items(body, *extent, MAX_CLIENT_BATCH)
        check_count(None if extents is None else len(extents), count)
        features = []
        for start, stop in extents or ():
            features.append(self._features.read(features_text(body, start, stop)))
            yield
        return features

    def _parse(self, body: bytes) -> PredictBody:
        try:
            return self._decode(body)
        except NOT_JSON as error:
            expected = 'expected {"input": …} or {"input_batch": […]}'
            if b"NaN" in body:
                expected += "; NaN is no JSON: write null for a missing value"
            raise MalformedRequest(f"body is not a predict call: {error}: {expected}") from error


def read_input(reader: Reader, text: bytearray, start: int, stop: int) -> Generator[None, None, bytes]:
    """Return the row of the input in ``text[start:stop]``."""
    if stop - start <= SHORT_TEXT_BYTES:
        return reader.read(bytes(text[start:stop]))
    return (yield from reader.read_long(text, start, stop))


def compose(text: bytearray, fields: Mapping[str, Extent], most_bytes: Mapping[str, int]) -> bytes:
    """Make a small body of the fields in ``most_bytes``. Raises MalformedRequest if one is over its bound."""
    parts = []
    for name, most in most_bytes.items():
        if name in fields:
            start, stop = fields[name]
            if stop - start > most:
                raise MalformedRequest(f"{name} takes {stop - start} bytes: expected at most {most}")
            parts.append(b'"%b":%b' % (name.encode(), bytes(text[start:stop])))
    return b"{%b}" % b",".join(parts)


def read_context(context: str | int | None, uid: str | int | None) -> str | None:
    """Return the context's name; None if there is none or it is empty. Raises MalformedRequest if it is too long."""
    name = context if context is not None else uid
    text = None if name is None else str(name)
    if text is not None and len(text) > MAX_CONTEXT_LENGTH:
        raise MalformedRequest(f"context has {len(text)} characters: expected at most {MAX_CONTEXT_LENGTH}")
    return text or None


def _request(parsed: PredictBody, rows: list[bytes], features: Sequence[bytes | None], is_batch: bool) -> Request:
    version = None if parsed.version is None else str(parsed.version)
    timeout_ms = parsed.timeout_ms
    if timeout_ms is not None and timeout_ms <= 0:
        raise MalformedRequest(f"timeout_ms is {timeout_ms:g}: expected a number of milliseconds above 0")
    timeout_s = None if timeout_ms is None else timeout_ms / 1000
    return Request(rows, features, is_batch, read_context(parsed.context, parsed.uid), version, timeout_s)


def _check_given(parsed: PredictBody) -> None:
    """Raises MalformedRequest unless the body has exactly one of the fields with inputs."""
    is_given = (
        not isinstance(parsed.input, msgspec.UnsetType),
        not isinstance(parsed.input_batch, msgspec.UnsetType),
        not isinstance(parsed.input_columns, msgspec.UnsetType),
    )
    if sum(is_given) != 1:
        raise MalformedRequest(_other_number([name for name, given in zip(_INPUT_FIELDS, is_given) if given]))


def _other_number(given: Sequence[str]) -> str:
    return f"body has {' and '.join(given) or 'no input'}: {_EXPECTED_INPUT}"
