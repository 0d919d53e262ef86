"""A listener of a link."""

from typing import Any

from clipper.containers.protocol.messages import Results, Welcome
from clipper.containers.protocol.typed import TypedResults


class Hearing:
    """A listener that keeps what it hears, in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def on_linked(self, welcome: Welcome) -> None:
        self.heard.append(("linked", welcome))

    def on_results(self, batch_id: int, results: Results | TypedResults) -> None:
        outputs = [bytes(results.data)] if isinstance(results, TypedResults) else list(results.outputs)
        self.heard.append(("results", batch_id, outputs))

    def on_error(self, batch_id: int, message: str) -> None:
        self.heard.append(("error", batch_id, message))

    def on_lost(self, reason: str) -> None:
        self.heard.append(("lost", reason))

    def kinds(self) -> list[str]:
        return [event[0] for event in self.heard]
