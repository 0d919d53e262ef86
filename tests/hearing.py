"""A listener of a link."""

from collections.abc import Collection
from typing import Any

from clipper.model.protocol.columns import BatchResults, ColumnResults
from clipper.model.protocol.messages import Buffer, Welcome
from clipper.values.output_arrays import TypedResults


class Hearing:
    """A listener that keeps what it hears, in order.

    Attributes:
        unsent: batches of which it says that they were not sent.
    """

    def __init__(self) -> None:
        self.unsent: Collection[int] = ()
        self.heard: list[tuple[Any, ...]] = []

    def on_linked(self, welcome: Welcome) -> None:
        self.heard.append(("linked", welcome))

    def on_told(self, welcome: Welcome) -> None:
        self.heard.append(("told", welcome))

    def on_ask(self, ask_id: int, body: Buffer) -> None:
        self.heard.append(("ask", ask_id, bytes(body)))

    def on_results(self, batch_id: int, results: BatchResults) -> bool:
        if isinstance(results, TypedResults):
            outputs: list[Any] = [bytes(results.data)]
        elif isinstance(results, ColumnResults):
            outputs = [(column.name, bytes(column.payload)) for column in results.columns]
        else:
            outputs = list(results.outputs)
        self.heard.append(("results", batch_id, outputs))
        return batch_id not in self.unsent

    def on_error(self, batch_id: int, message: str) -> bool:
        self.heard.append(("error", batch_id, message))
        return batch_id not in self.unsent

    def on_lost(self, reason: str) -> None:
        self.heard.append(("lost", reason))

    def kinds(self) -> list[str]:
        return [event[0] for event in self.heard]
