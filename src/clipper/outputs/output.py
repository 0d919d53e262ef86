"""One output of a model, as it goes through a query worker.

Most outputs are JSON texts, which answers copy. A container that speaks version 2 of the protocol sends arrays as they
are: such an output keeps its numbers, and makes its text only when a reader of text asks for it.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from clipper.containers.protocol.typed import OutputForm, TypedResults
from clipper.inputs.numbers import NUMPY
from clipper.outputs.json_text import json_text, most_text_bytes
from clipper.types import DType


class TypedOutput(msgspec.Struct, gc=False, eq=False):
    """An output as raw numbers. ``bytes()`` of it is its JSON text, and ``len()`` what it takes with its text.

    The text is kept, since an answer, a policy, feedback and the decision log read the same one. Its size is counted
    from the beginning, so that the size of what caches and join tables hold does not change under them. Like the works
    that have them, outputs are not tracked by the garbage collector.

    Attributes:
        form: shared by the outputs of a batch.
        data: the elements in C order, little-endian.
        most_bytes: a bound of the size of ``data`` with its text.
        text: JSON text; None until somebody reads it.
    """

    form: OutputForm
    data: bytes
    most_bytes: int
    text: bytes | None = None

    def __bytes__(self) -> bytes:
        if self.text is None:
            self.text = json_text(self.form, self.data)
        return self.text

    def __len__(self) -> int:
        return self.most_bytes


# JSON text, or an array that becomes JSON text by ``bytes()``; ``bytes()`` of a text is the text itself.
Output = bytes | TypedOutput


def read_outputs(results: TypedResults) -> tuple[Sequence[TypedOutput | None], Mapping[int, str]]:
    """Return the outputs of a batch, None for a failed row, and the message for each failed row.

    Rows that JSON could not carry fail, as they do in a container that sends text: whether an output is valid must not
    depend on who reads it.
    """
    form, data, failures = results.form, results.data, dict(results.failures)
    elements = np.frombuffer(data, np.uint8 if form.dtype is DType.BOOL else NUMPY[form.dtype])
    if form.dtype in (DType.FLOAT32, DType.FLOAT64):
        is_valid, problem = np.isfinite(elements), "output contains NaN or infinity, which JSON cannot carry"
    elif form.dtype is DType.BOOL:
        is_valid, problem = elements <= 1, "output contains a bool that is not 0 or 1"
    else:
        is_valid = None
    if is_valid is not None and not is_valid.all():
        for row in np.flatnonzero(~is_valid.reshape(results.rows, -1).all(1)).tolist():
            failures.setdefault(row, problem)
    size = form.row_bytes
    most_bytes = size + most_text_bytes(form)
    # Copies: a row that is cached must not keep the whole batch.
    outputs: list[TypedOutput | None] = [
        TypedOutput(form, bytes(data[start : start + size]), most_bytes) for start in range(0, len(data), size)
    ]
    for row in failures:
        outputs[row] = None
    return outputs, failures
