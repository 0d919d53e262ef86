"""A container's first batches, before it is in service.

What a model loads, compiles or fills in its first calls then makes no query late.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from clipper.containers.protocol.messages import Welcome
from clipper.control.snapshot import ReplicaAddress
from clipper.managers.probe import Caller
from clipper.types import InputType, ModelId

# Frameworks that compile for the shape of a batch do so for one row, and once more for several.
WARM_UP_ROWS = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """An input to warm up with.

    Attributes:
        row: in the form of the container protocol.
        is_given: it came with the deployment, so the model must answer it; else it is the input of a recent query.
        max_batch: the most rows of a batch: what the deployment allows, or fewer if a larger one has killed.
    """

    row: bytes
    is_given: bool
    max_batch: int


class SampleSource(Protocol):
    """Finds the samples that versions are warmed up with."""

    async def find(self, id_: ModelId, input_type: InputType) -> Sample | None:
        """A sample of that type for a version; None if it has none, or should not be warmed up.

        Raises:
            RequestError: the sample that came with the deployment is not of the type.
        """

    def has_killed(self, id_: ModelId, rows: int) -> bool:
        """Note that a batch of ``rows`` killed a container; return whether the next start sends fewer."""


def warm_up_sizes(max_batch: int, model_max_batch: int | None) -> tuple[int, ...]:
    """The rows of each warm-up batch: one, and then several if batches may be so large."""
    several = min(WARM_UP_ROWS, max_batch, model_max_batch or max_batch)
    return (1, several) if several > 1 else (1,)


def fewer_rows(rows: int) -> int:
    """The most rows of a warm-up batch after one of ``rows`` has killed; 0 means no warm-up."""
    return 1 if rows > 1 else 0


async def warm_up(
    address: ReplicaAddress, welcome: Welcome, sample: Sample, on_batch: Callable[[int], None]
) -> str | None:
    """Have a container evaluate the sample, and wait until it has.

    Args:
        on_batch: called before each batch with the number of its rows.

    Returns:
        The model's message if it failed, else None.

    Raises:
        OSError: the connection failed.
        ProtocolViolation: the container breaks the protocol.
    """
    with closing(await Caller.dial(address)) as caller:
        for rows in warm_up_sizes(sample.max_batch, welcome.max_batch):
            on_batch(rows)
            failure = await caller.predict(welcome.input_type, [sample.row] * rows)
            if failure is not None:
                return failure
    return None
