"""Outputs of models that are asked for them because feedback needs them."""

import asyncio

from clipper.values.outputs.output import Output, is_readable


class FeedbackOutputs:
    """Gathers the outputs, as texts, of models that are asked for one piece of feedback.

    Attributes:
        all_in: a future that is done once every model has answered or failed.
        has_large: whether an output has come that is too large to be compared with a label.
    """

    def __init__(self, outputs: dict[str, bytes], deadline_s: float) -> None:
        self.outputs = outputs
        self.deadline_s = deadline_s
        self.done = False
        self.span = None  # feedback is not traced
        self.missing = 0
        self.has_large = False
        self.all_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_output(self, model: str, output: Output) -> None:
        if is_readable(output):
            self.outputs[model] = bytes(output)
        else:
            self.has_large = True
        self.arrived()

    def on_failure(self, model: str, code: str, message: str) -> None:
        """Count it as arrived; scoring decides what a missing output means."""
        self.arrived()

    def arrived(self) -> None:
        self.missing -= 1
        if not self.missing and not self.all_in.done():
            self.all_in.set_result(None)


class FeedbackOutput:
    """Takes one model's output, under the model's name in the policy."""

    __slots__ = ("_name", "_outputs", "may_wait")

    def __init__(self, outputs: FeedbackOutputs, name: str) -> None:
        self.may_wait = False
        self._outputs = outputs
        self._name = name

    @property
    def done(self) -> bool:
        return self._outputs.done

    @property
    def deadline_s(self) -> float:
        return self._outputs.deadline_s

    @property
    def span(self) -> None:
        """Feedback is not traced."""

    def on_output(self, model: str, output: Output) -> None:
        self._outputs.on_output(self._name, output)

    def on_failure(self, model: str, code: str, message: str) -> None:
        self._outputs.arrived()
