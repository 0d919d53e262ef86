"""Reads the data of a request's tensors: in one step for those that follow one another, where that can be done."""

from collections.abc import Generator, Sequence
from itertools import groupby
from typing import Any

from msgspec import Raw, Struct

from clipper.errors import MalformedRequest
from clipper.values.inputs.json_parts import Extent
from clipper.worker.frontend.inference.input_tensors import FieldTensor, Together, together
from clipper.worker.frontend.inference.json_data import read_json
from clipper.worker.frontend.inference.tensors import Tensor, TensorReader, Values


class Announced(Struct, frozen=True):
    """A tensor of a request, and the place of its data.

    Attributes:
        size_bytes: the size of its binary data; 0 if the data is in the JSON.
        data: the JSON text of the data if the JSON is short, its extent if the JSON is long; None for binary data.
    """

    tensor: Tensor
    reader: TensorReader
    size_bytes: int
    data: Raw | Extent | None = None


class Run(Struct, frozen=True):
    """Tensors that follow one another in a request, and are read in one step if they are short.

    ``names``: those of several tensors that ``reads`` reads; without one, the only tensor reads itself.
    """

    start: int
    stop: int
    names: tuple[str, ...] = ()
    reads: Together | None = None


def runs_of(order: Sequence[Announced]) -> tuple[Run, ...]:
    """Return the tensors by the steps in which they are read."""
    runs: list[Run] = []
    start = 0
    for datatype, each in groupby(order, lambda one: one.tensor.datatype if _is_quick(one) else None):
        run = list(each)
        stop = start + len(run)
        if datatype is None or len(run) == 1:
            runs.append(Run(start, stop))
        else:
            reads = together([one.reader for one in run], run[0].tensor)
            runs.append(Run(start, stop, tuple([one.tensor.name for one in run]), reads))
        start = stop
    return tuple(runs)


def _is_quick(announced: Announced) -> bool:
    return announced.data is None and announced.reader.is_quick(announced.tensor)


def read_tensors(
    order: Sequence[Announced],
    sizes: Sequence[int],
    body: bytes | bytearray,
    json_bytes: int,
    runs: Sequence[Run] = (),
) -> Generator[None, None, dict[str, Sequence[Any]]]:
    """Return the content of each tensor by its name, in steps of a few milliseconds at most.

    ``sizes``, ``runs``: see ``Plan``; without runs, each tensor is read by itself. Raises MalformedRequest or
    WrongInput.
    """
    at = json_bytes
    view = memoryview(body)
    announced_bytes = sum(sizes)
    if announced_bytes != len(body) - json_bytes:
        raise MalformedRequest(
            f"request has {len(body) - json_bytes} bytes after its JSON: expected {announced_bytes}, "
            "the sum of the inputs' binary_data_size"
        )
    found: dict[str, Sequence[Any]] = {}
    for run in runs or (Run(0, len(order)),):
        if run.reads is not None:
            own = sizes[run.start : run.stop]
            end = at + sum(own)
            columns = run.reads.columns(own, view[at:end])
            if columns is not None:
                found.update(zip(run.names, columns))
                at = end
                yield
                continue
        for each, size in zip(order[run.start : run.stop], sizes[run.start : run.stop]):
            if each.data is not None:
                found[each.tensor.name] = yield from _read_data(each, body)
            else:
                found[each.tensor.name] = yield from each.reader.rows(each.tensor, view[at : at + size])
                at += size
    return found


def _read_data(announced: Announced, body: bytes | bytearray) -> Values:
    data, tensor, reader = announced.data, announced.tensor, announced.reader
    if isinstance(data, tuple):
        assert isinstance(body, bytearray)  # long JSON is read in place
        text, (start, stop) = body, data
    else:
        text = bytearray(data or b"")
        start, stop = 0, len(text)
    if isinstance(reader, FieldTensor):
        return (yield from reader.read_json(tensor, text, start, stop))
    return (yield from read_json(reader, tensor, text, start, stop))
