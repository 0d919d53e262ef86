"""A container's first batches, before it is in service: what it loads, compiles or fills with its first calls costs no
query its deadline."""

from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass

from clipper.containers.protocol.messages import Welcome
from clipper.managers.probe import Caller
from clipper.snapshot import ReplicaAddress
from clipper.types import InputType, ModelId

# Frameworks that compile by the shape of a batch do so for one row, and once more for several.
WARM_UP_ROWS = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """An input to warm up with.

    Attributes:
        row: as the container protocol sends it.
        is_given: by whoever deployed, so that the model has to answer it; else it is a query's that came not long ago.
        max_batch: the most rows that the deployment allows in a batch.
    """

    row: bytes
    is_given: bool
    max_batch: int


# For a version, whose containers take inputs of that type: None if there is nothing to warm it up with. Raises
# RequestError where what was given is not of the type.
SampleSource = Callable[[ModelId, InputType], Awaitable[Sample | None]]


def warm_up_sizes(max_batch: int, model_max_batch: int | None) -> tuple[int, ...]:
    """How many rows each warm-up batch has: one, and several if batches may have as many."""
    several = min(WARM_UP_ROWS, max_batch, model_max_batch or max_batch)
    return (1, several) if several > 1 else (1,)


async def warm_up(address: ReplicaAddress, welcome: Welcome, sample: Sample) -> str | None:
    """Have a container evaluate the sample; wait until it has.

    Returns:
        What the model said if it failed, else None.

    Raises:
        OSError: the connection failed.
        ProtocolViolation: the container speaks wrongly.
    """
    with closing(await Caller.dial(address)) as caller:
        for rows in warm_up_sizes(sample.max_batch, welcome.max_batch):
            failure = await caller.predict(welcome.input_type, [sample.row] * rows)
            if failure is not None:
                return failure
    return None
