"""What every framework's module is given and gives back."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipper.errors import ContainerFailed
from clipper.runtime.model import Inputs
from clipper.types import InputType

LABELS = "labels"
PROBABILITIES = "probabilities"


@dataclass(frozen=True, slots=True)
class FrameworkSource:
    """What to load.

    Attributes:
        path: the model file or folder.
        data: its second file, of a model that is two.
        target: ``module:Class``, of a model that is a class and the state dict at ``path``.
        output: ``labels``, ``probabilities``, or names of outputs with commas between; None means the model's own.
        input_type: text form, where the deployment says it. Inputs come in this type, so convert them to what the
            model wants.
    """

    path: Path
    data: Path | None = None
    target: str | None = None
    output: str | None = None
    input_type: str | None = None

    def names(self, known: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
        """Return the outputs that were asked for, or ``default`` if none were.

        Raises:
            ContainerFailed: one is not ``known``.
        """
        names = tuple(default) if self.output is None else tuple(name.strip() for name in self.output.split(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ContainerFailed(
                f"{self.path.name} has no output {', '.join(unknown)}: it has {', '.join(known)}; "
                "deploy it with --output and one or more of these, or without"
            )
        return names


@dataclass(frozen=True, slots=True)
class FrameworkModel:
    """A loaded model.

    Attributes:
        predict_batch: one output an input, as of ``ModelContainer``.
        input_type: what it takes; None if its file does not tell.
        library: what runs it and its version, e.g. ``onnxruntime 1.32.0``.
        max_batch: the most inputs that it takes at once; None means any number.
    """

    predict_batch: Callable[[Inputs], object]
    input_type: InputType | None
    library: str
    max_batch: int | None = None


def answered(outputs: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    """Return one answer a row: of one output its value, of several an object ``{name: value}``."""
    if len(outputs) == 1:
        return next(iter(outputs.values()))
    return [dict(zip(outputs, row)) for row in zip(*outputs.values())]


def thread_count() -> int:
    """How many threads a model may use: ``OMP_NUM_THREADS``, else one, since replicas are the unit of parallelism."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() and int(text) > 0 else 1
