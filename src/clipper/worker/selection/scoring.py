"""Blocks of rows for an application: which version evaluates them. Rows of a block are no queries."""

from collections.abc import Callable, Generator

from clipper.errors import NotImplementedYet
from clipper.model.protocol.frames import MIXED_VERSION
from clipper.model.protocol.messages import Buffer, Welcome, encode_welcome
from clipper.worker.abstraction.block_rows import BlockRows, read_block
from clipper.worker.abstraction.model_queue import ModelQueue
from clipper.worker.selection.application import Application

# The most rows of a block: more would have no use, since a piece that goes to a replica is smaller.
MAX_ROWS = 16_384


class Scoring:
    """A block that a version evaluates while no query waits.

    Attributes:
        model: the version, for messages.
        rows, size_bytes: of the block.
    """

    def __init__(self, target: ModelQueue, block: BlockRows) -> None:
        self._target, self._block = target, block
        self.model, self.rows, self.size_bytes = target.model, block.rows, block.size_bytes

    def begin(self, on_answer: Callable[[int, bool], None], on_failure: Callable[[str, str], None]) -> bool:
        """Queue the block. Return False if there is no room.

        Args:
            on_answer: called with the size of each answer to a part, and whether it was the last one.
            on_failure: called with the code and message of an error of the whole block.
        """
        self._block.on_answer, self._block.on_failure = on_answer, on_failure
        return self._target.blocks.begin(self._block)

    def end(self) -> None:
        """Forget the block: it was answered, or nobody waits for it any more."""
        self._target.blocks.end(self._block)

    @property
    def answer_bytes(self) -> int:
        return self._block.answer_bytes

    def answer(self) -> list[Buffer]:
        """Return the answer in parts: WELCOME, which names the version and its types, and the frames of results."""
        target, typing = self._target, self._target.output_typing
        told = Welcome(
            *(target.name, target.model.version, target.input_type),
            output_type=typing.type,
            output_is_declared=typing.declared is not None,
            protocol=MIXED_VERSION,  # older clients read answers that say a version that they know
        )
        return [encode_welcome(told), *self._block.answer]


def read_scoring(
    application: Application, version: str | None, body: bytes | bytearray
) -> Generator[None, None, Scoring]:
    """Read a block in steps of a millisecond or two.

    Args:
        version: the version that shall evaluate it; None is the current one of the only model.

    Raises:
        NotFound, WrongInput: as ``Terms.pinned``; WrongInput also if the body is no block of its inputs.
        NotImplementedYet: the application has a policy that would have to choose.
    """
    target = _target(application, version)
    return Scoring(target, (yield from read_block(body, target.input_type, MAX_ROWS)))


def _target(application: Application, version: str | None) -> ModelQueue:
    terms, name = application.terms, application.name
    if version is not None:
        (pinned,) = terms.pinned(version)[1].values()
        return pinned
    found = terms.targets.get(terms.models[0]) if len(terms.models) == 1 else None
    if found is None:
        raise NotImplementedYet(
            f"application {name!r} has several models or none that runs, and a block of rows is for one: name a "
            f"version, as in /v2/models/{name}/versions/VERSION/score, or ask for predictions"
        )
    return found
