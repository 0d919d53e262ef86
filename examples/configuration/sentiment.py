"""The models of clipper.yaml: two ways to tell whether a sentence is good or bad news."""

from collections.abc import Sequence

GOOD = frozenset({"fine", "good", "great", "love", "wonderful"})
BAD = frozenset({"awful", "bad", "hate", "late", "poor"})


class Bold:
    """Counts words."""

    input_type = "string"

    def __init__(self, model_data: str | None) -> None:
        self.least = 1

    def predict_batch(self, inputs: Sequence[str]) -> list[str]:
        return [self.label(sentence.lower().split()) for sentence in inputs]

    def label(self, words: Sequence[str]) -> str:
        score = sum(word in GOOD for word in words) - sum(word in BAD for word in words)
        if abs(score) < self.least:
            return "neutral"
        return "good" if score > 0 else "bad"


class Cautious(Bold):
    """Says nothing of a sentence with one such word."""

    def __init__(self, model_data: str | None) -> None:
        self.least = 2
