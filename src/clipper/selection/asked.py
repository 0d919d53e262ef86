"""Waits for models that are asked to score feedback."""

import asyncio

from clipper.outputs.output import Output, is_readable


class Asked:
    """Gathers the outputs of models that are asked to score feedback, as texts.

    Attributes:
        all_in: done when none is missing.
    """

    def __init__(self, outputs: dict[str, bytes], deadline_s: float) -> None:
        self.outputs = outputs
        self.deadline_s = deadline_s
        self.done = False
        self.span = None  # feedback is not traced
        self.missing = 0
        self.all_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_output(self, model: str, output: Output) -> None:
        if is_readable(output):  # else it counts as missing
            self.outputs[model] = bytes(output)
        self.arrived()

    def on_failure(self, model: str, code: str, message: str) -> None:
        """Count it as arrived; scoring decides what a missing output means."""
        self.arrived()

    def arrived(self) -> None:
        self.missing -= 1
        if not self.missing and not self.all_in.done():
            self.all_in.set_result(None)


class AskedByName:
    """Waits for one of these models, under the name by which the policy knows it."""

    __slots__ = ("_asked", "_name")

    def __init__(self, asked: Asked, name: str) -> None:
        self._asked = asked
        self._name = name

    @property
    def done(self) -> bool:
        return self._asked.done

    @property
    def deadline_s(self) -> float:
        return self._asked.deadline_s

    @property
    def span(self) -> None:
        """Feedback is not traced."""

    def on_output(self, model: str, output: Output) -> None:
        self._asked.on_output(self._name, output)

    def on_failure(self, model: str, code: str, message: str) -> None:
        self._asked.arrived()
