"""The models that clients of others ask, the same for each server: their tensors, and what they make of a batch.

Each server runs this file in an environment of its own.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = Mapping[str, Any]
# Of a batch of the model ``slow``; clients that wait for each answer take this for each request.
BATCH_S = 0.05
# Clipper's name of a datatype.
CLIPPERS = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "string",
}


@dataclass(frozen=True)
class Model:
    """A model.

    Attributes:
        inputs: datatype and shape of a row, by name; -1 is any length.
        outputs: the same.
        answer: outputs of a batch by name; arrays whose first dimension counts rows, or for the others lists.
        nullable: the inputs that may be missing in a row.
        default: what Clipper answers for a row without an answer; no other server has this.
    """

    inputs: Mapping[str, tuple[str, list[int]]]
    outputs: Mapping[str, tuple[str, list[int]]]
    answer: Callable[[Arrays], Arrays]
    nullable: frozenset[str] = frozenset()
    default: Any = None

    @property
    def input_type(self) -> str:
        return _type(self.inputs, "input", self.nullable)

    @property
    def output_type(self) -> str:
        return _type(self.outputs, "output")


def _type(tensors: Mapping[str, tuple[str, list[int]]], alone: str, nullable: frozenset[str] = frozenset()) -> str:
    """A type as Clipper writes it; a tensor that is called ``alone`` has no name there."""
    found = {}
    for name, (datatype, shape) in tensors.items():
        lengths = "" if shape == [1] else ",".join("*" if size < 0 else str(size) for size in shape)
        suffix = "?" if name in nullable else ""
        found[name] = CLIPPERS[datatype] + ("" if datatype == "BYTES" else f"[{lengths}]") + suffix
    return found[alone] if list(found) == [alone] else ", ".join(f"{name}: {of}" for name, of in found.items())


def _total(arrays: Arrays) -> Arrays:
    return {"output": arrays["input"].sum(1, keepdims=True)}


def _echo(arrays: Arrays) -> Arrays:
    return {"output": arrays["input"]}


def _holes(arrays: Arrays) -> Arrays:
    rows = arrays["input"]
    return {"output": np.where(rows < 0, np.nan, np.where(rows > 100, np.inf, rows)).astype("f4")}


def _classes(arrays: Arrays) -> Arrays:
    scores = arrays["input"][:, :3]
    return {"label": scores.argmax(1)[:, None], "probabilities": scores / scores.sum(1, keepdims=True)}


def _ragged(arrays: Arrays) -> Arrays:
    """As many numbers as the first of a row says, padded with NaN to the longest of the batch."""
    lengths = arrays["input"][:, 0].astype(int)
    steps = np.arange(max(lengths), dtype="f4")[None].repeat(len(lengths), 0)
    return {"output": np.where(steps < lengths[:, None], steps, np.nan).astype("f4")}


def _gaps(arrays: Arrays) -> Arrays:
    """The rows, but half of those that begin with a negative number, which are then not of the type of outputs."""
    return {"output": [row[:2] if row[0] < 0 else row for row in arrays["input"]]}


def _slow(arrays: Arrays) -> Arrays:
    time.sleep(BATCH_S)
    return _total(arrays)


def _pair(arrays: Arrays) -> Arrays:
    return {"output": arrays["x"].sum(1, keepdims=True) * arrays["times"]}


def _people(arrays: Arrays) -> Arrays:
    """A text of each row, in which a missing value is a dash."""
    columns = [[_text(value) for value in np.asarray(arrays[name]).flatten().tolist()] for name in _PERSON]
    return {"output": np.array([["|".join(row)] for row in zip(*columns)], dtype=object)}


def _text(value: Any) -> str:
    is_missing = value is None or value != value  # NaN
    return "-" if is_missing else value.decode() if isinstance(value, bytes) else str(value)


def _four(datatype: str) -> Mapping[str, tuple[str, list[int]]]:
    return {"input": (datatype, [4])}


_PERSON = {"age": ("FP64", [1]), "job": ("BYTES", [1]), "visits": ("INT64", [1])}
_NUMBER = {"output": ("FP32", [1])}
_FOUR = {"output": ("FP32", [4])}

MODELS = {
    # Of calls.json.
    "m": Model(_four("FP64"), {"output": ("FP64", [1])}, _total),
    "total": Model(_four("FP32"), _NUMBER, _total),
    "holes": Model(_four("FP32"), _FOUR, _holes),
    "classes": Model(_four("FP32"), {"label": ("INT64", [1]), "probabilities": ("FP32", [3])}, _classes),
    "ragged": Model(_four("FP32"), {"output": ("FP32", [-1])}, _ragged),
    "gaps": Model(_four("FP32"), _FOUR, _gaps, default=[0.5, 0.5, 0.5, 0.5]),
    "slow": Model(_four("FP32"), _NUMBER, _slow),
    "pair": Model({"x": ("FP32", [2]), "times": ("FP32", [1])}, _NUMBER, _pair),
    "people": Model(_PERSON, {"output": ("BYTES", [1])}, _people, nullable=frozenset(("age", "job"))),
    "texts": Model({"input": ("BYTES", [1])}, {"output": ("BYTES", [1])}, _echo),
    **{
        f"echo_{datatype.lower()}": Model(_four(datatype), {"output": (datatype, [4])}, _echo)
        for datatype in CLIPPERS
        if datatype != "BYTES"
    },
}
