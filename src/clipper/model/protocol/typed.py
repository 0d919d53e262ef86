"""TYPED_RESULTS: the outputs of a batch as one array, raw and little-endian. See proto/container-protocol.md.

So numbers stay unchanged on their way to a client that takes them raw. They become JSON text only for a reader of text.
"""

import struct
from collections.abc import Mapping

from clipper.errors import ModelFailed, ProtocolViolation
from clipper.model.protocol.frames import HEADER, Kind
from clipper.model.protocol.messages import MAX_ROWS, Buffer, pack_failures, read_failures
from clipper.values.output_arrays import OutputForm, TypedResults
from clipper.values.types import MAX_DIMENSIONS, DType

# rows, failed rows, evaluation time in microseconds, dtype, the dtype that texts have, dimensions, three reserved
_HEAD = struct.Struct("<IIQBBBBI")
_FRAME_HEAD = struct.Struct(HEADER.format + _HEAD.format[1:])

_DTYPES = {int(dtype): dtype for dtype in DType if dtype.is_numeric}


def encode_typed_results(
    batch_id: int,
    rows: int,
    form: OutputForm,
    data: Buffer,
    evaluation_us: int = 0,
    failures: Mapping[int, str] | None = None,
) -> bytes:
    """Encode the answer to a batch. ``data``: the outputs one after another, with ``form.row_bytes`` for each row, also
    for rows with a failure.
    """
    return b"".join(typed_results_frame(batch_id, rows, form, data, evaluation_us, failures))


def typed_results_frame(
    batch_id: int,
    rows: int,
    form: OutputForm,
    data: Buffer,
    evaluation_us: int = 0,
    failures: Mapping[int, str] | None = None,
) -> tuple[Buffer, ...]:
    """Return the same as buffers to write one after another: the data is not copied."""
    failed = failures or {}
    dimensions = len(form.shape)
    lengths = struct.pack(f"<{dimensions}I{4 * (dimensions % 2)}x", *form.shape)
    texts = pack_failures(failed)
    body_bytes = _HEAD.size + len(lengths) + len(data) + len(texts)
    head = _FRAME_HEAD.pack(
        *(body_bytes, Kind.TYPED_RESULTS, 0, 0, batch_id),
        *(rows, len(failed), evaluation_us, form.dtype, form.written_as, dimensions, 0, 0),
    )
    return head + lengths, data, texts


def decode_typed_results(body: Buffer) -> TypedResults:
    """Decode a TYPED_RESULTS, not its elements. Raises ModelFailed, after which other frames can be read."""
    try:
        return _decode(memoryview(body))
    except ProtocolViolation as error:
        raise ModelFailed(f"the container's outputs cannot be read: {error}") from error


def _decode(view: memoryview) -> TypedResults:
    if len(view) < _HEAD.size:
        raise ProtocolViolation(f"TYPED_RESULTS of {len(view)} bytes is too short: expected at least {_HEAD.size}")
    rows, failed, evaluation_us, code, written_code, dimensions, reserved, reserved_too = _HEAD.unpack_from(view)
    if not 1 <= rows <= MAX_ROWS or failed > rows:
        raise ProtocolViolation(f"TYPED_RESULTS has {failed} failures in {rows} rows: expected 1 to {MAX_ROWS} rows")
    dtype, written_as = _DTYPES.get(code), _DTYPES.get(written_code)
    if dtype is None or written_as is None or reserved or reserved_too:
        raise ProtocolViolation(
            f"TYPED_RESULTS has type {code}, written as {written_code}, or a reserved field that is not 0: "
            "expected types from 1 to 6"
        )
    if written_as != dtype and (dtype, written_as) != (DType.FLOAT32, DType.FLOAT64):
        raise ProtocolViolation(
            f"TYPED_RESULTS has {dtype.label} written as {written_as.label}: expected {dtype.label}"
        )
    start = _HEAD.size + 4 * (dimensions + dimensions % 2)
    if dimensions > MAX_DIMENSIONS or len(view) < start:
        raise ProtocolViolation(f"TYPED_RESULTS has {dimensions} dimensions: expected at most {MAX_DIMENSIONS}")
    form = OutputForm(dtype, struct.unpack_from(f"<{dimensions}I", view, _HEAD.size), written_as)
    end = start + rows * form.row_bytes
    if 0 in form.shape or end > len(view):
        raise ProtocolViolation(
            f"TYPED_RESULTS has {len(view) - start} bytes for {rows} rows of shape {form.shape}, {dtype.label}"
        )
    failures, last = read_failures(view, end, rows, failed)
    if last != len(view):
        raise ProtocolViolation(
            f"TYPED_RESULTS has {len(view) - last} bytes after {rows} rows of shape {form.shape}, {dtype.label}"
        )
    return TypedResults(form, rows, view[start:end], evaluation_us, failures)
