"""The model that a user writes, and the form in which the runtime serves it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from clipper.values.records import ValueType

Array = npt.NDArray[Any]

# The values of one field of a record, one for each row of a batch; an output with a name may be either:
#   numbers, tensors     an array, as below; of numbers that may be missing a float array, where NaN is missing
#   strings, bytes       a list, where None is missing
#   truths, and tensors  that may be missing: a list of bool and None, and an array of objects, each an array or None
Values = Array | list[Any]
# The fields of a record by name, in the order of its type.
Columns = dict[str, Values]

# The inputs of a batch, all of the model's input type:
#   numeric        one array (rows, *shape), which the model may change and keep. If the input type has a dimension of
#                  any length, a batch of several shapes is a list of arrays here, and several calls of the model.
#   string, bytes  a list of str, of bytes
#   record         its columns
Inputs = Array | list[Array] | list[str] | list[bytes] | Columns


class ModelContainer(Protocol):
    """A model as a class. It need not derive from this one. A function over a batch is a model too.

    A class may have an ``input_type``, e.g. ``"float32[3,*,*]"`` or ``"age: float64, job: string?"``, which counts if
    the deployment says none, a ``max_batch``, its own limit on a batch's rows, and an ``output_type``, e.g.
    ``"float32[10]"`` or ``"label: string, scores: float32[10]"``, by which its outputs are kept; without one it is
    learned from the first. An ``input_type`` may be a class with annotations: a dataclass, a TypedDict or a pydantic
    model of one row.

    A record's batch is a dict of arrays and lists by field, unless ``predict_batch`` annotates ``inputs`` otherwise: a
    pandas DataFrame, or ``list[Row]`` of such a class, which then is the input type, too.
    """

    def __init__(self, model_data: str | None) -> None:
        """Load the model. ``model_data`` is the path of the deployment's data, or None if it has none."""

    def predict_batch(self, inputs: Inputs) -> Sequence[Any] | Mapping[str, Sequence[Any]]:
        """Answer a batch.

        Args:
            inputs: one or more; their number changes from call to call.

        Returns:
            One output for each input, in the same order: numbers, texts, bytes, lists, dicts, numpy arrays and scalars.
            Several outputs with names: a dict, dataclass, named tuple or pandas frame with one sequence for each name,
            or a dict, dataclass or named tuple for each input. In JSON they are an object, bytes are base64, and NaN
            and infinity are null.

        Raises:
            Exception: then the batch is tried in halves, so that only those inputs fail for which it raises.
        """
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to answer.

    Attributes:
        predict_batch: takes ``Inputs`` and should return one output for each, but may do anything.
        runtime: free text about the environment, e.g. ``python 3.11.7, scikit-learn 1.9.1``.
        output_type: the declared type of its outputs; None if it has to be learned from them.
        device: the device on which it computes, if a GPU is reserved for it and the device is known; else empty.
        warning: a sentence for the person who deploys the model; empty if there is none.
    """

    predict_batch: Callable[[Inputs], object]
    input_type: ValueType
    max_batch: int | None
    runtime: str
    output_type: ValueType | None = None
    device: str = ""
    warning: str = ""
