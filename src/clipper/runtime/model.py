"""What a user writes, and what the runtime makes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from clipper.types import InputType

Array = npt.NDArray[Any]

# One input an entry, all of the model's input type:
#   numeric        one array (rows, *shape); writable, and the model's to keep. A batch of several shapes is a list of
#                  arrays here, and comes to the model in several calls; there is none unless the input type has a
#                  dimension of any length.
#   string, bytes  a list of str, of bytes
Inputs = Array | list[Array] | list[str] | list[bytes]


class ModelContainer(Protocol):
    """The class form of a model. It need not derive from this; a function over a batch does as well.

    A class may also say what it takes, where the deployment does not: ``input_type``, e.g. ``"float32[3,*,*]"``, and
    ``max_batch``, a bound of its own.
    """

    def __init__(self, model_data: str | None) -> None:
        """Load the model. ``model_data`` is the path of the deployment's data, or None if it has none."""

    def predict_batch(self, inputs: Inputs) -> Sequence[Any]:
        """Answer a batch.

        Args:
            inputs: never empty; how many there are changes from call to call.

        Returns:
            One output an input, in the same order: numbers, texts, lists, dicts, numpy arrays and scalars of
            these, and bytes (which become base64).

        Raises:
            Exception: the batch is tried in parts, so that only those inputs fail that make it raise.
        """
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to answer.

    Attributes:
        predict_batch: takes ``Inputs``, should return one output an input; may do anything.
        runtime: free text on the environment, e.g. ``python 3.11.7, scikit-learn 1.9.1``.
    """

    predict_batch: Callable[[Inputs], object]
    input_type: InputType
    max_batch: int | None
    runtime: str
