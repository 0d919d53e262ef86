"""A container's first batches, before it is in service: what it loads, compiles or fills with its first calls costs no
query its deadline."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from clipper.containers.protocol.messages import Welcome
from clipper.control.snapshot import ReplicaAddress
from clipper.managers.probe import Caller
from clipper.types import InputType, ModelId

# Frameworks that compile by the shape of a batch do so for one row, and once more for several.
WARM_UP_ROWS = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """An input to warm up with.

    Attributes:
        row: as the container protocol sends it.
        is_given: by whoever deployed, so that the model has to answer it; else it is a query's that came not long ago.
        max_batch: the most rows that a batch may have: what the deployment allows, or fewer where more have killed.
    """

    row: bytes
    is_given: bool
    max_batch: int


class SampleSource(Protocol):
    """Knows what versions are warmed up with."""

    async def find(self, id_: ModelId, input_type: InputType) -> Sample | None:
        """The sample of a version whose containers take inputs of that type; None if there is none, or none is due.

        Raises:
            RequestError: what was given is not of the type.
        """

    def has_killed(self, id_: ModelId, rows: int) -> bool:
        """A container ended over ``rows`` of it; return whether the next start leaves so many out."""


def warm_up_sizes(max_batch: int, model_max_batch: int | None) -> tuple[int, ...]:
    """How many rows each warm-up batch has: one, and several if batches may have as many."""
    several = min(WARM_UP_ROWS, max_batch, model_max_batch or max_batch)
    return (1, several) if several > 1 else (1,)


def fewer_rows(rows: int) -> int:
    """How many rows the largest warm-up batch may have, once one of ``rows`` has killed: 0 is no warm-up."""
    return 1 if rows > 1 else 0


async def warm_up(
    address: ReplicaAddress, welcome: Welcome, sample: Sample, on_batch: Callable[[int], None]
) -> str | None:
    """Have a container evaluate the sample; wait until it has.

    Args:
        on_batch: called before each batch with the number of its rows.

    Returns:
        What the model said if it failed, else None.

    Raises:
        OSError: the connection failed.
        ProtocolViolation: the container speaks wrongly.
    """
    with closing(await Caller.dial(address)) as caller:
        for rows in warm_up_sizes(sample.max_batch, welcome.max_batch):
            on_batch(rows)
            failure = await caller.predict(welcome.input_type, [sample.row] * rows)
            if failure is not None:
                return failure
    return None
