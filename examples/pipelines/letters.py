"""The models of clipper.yaml, each small enough to be read: they look for words."""

import re
from collections.abc import Sequence

import numpy as np

GERMAN = {"mein": "my", "paket": "parcel", "ist": "is", "kaputt": "broken", "zurück": "back", "geld": "money"}
TOPICS = {"damage": {"broken", "torn"}, "refund": {"money", "refund", "back"}, "delivery": {"parcel", "late", "where"}}
BAD = {"broken", "torn", "late", "angry"}


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class Language:
    """Says whether a text is German, and how sure that is."""

    input_type = "string"
    output_type = "label: string, sure: float64"

    def __init__(self, model_data: str | None) -> None:
        pass

    def predict_batch(self, inputs: Sequence[str]) -> list[dict[str, object]]:
        shares = [sum(word in GERMAN for word in words_of(text)) / max(1, len(words_of(text))) for text in inputs]
        return [{"label": "de" if share > 0.5 else "en", "sure": max(share, 1 - share)} for share in shares]


class Translator:
    """Translates word by word."""

    input_type = output_type = "string"

    def __init__(self, model_data: str | None) -> None:
        pass

    def predict_batch(self, inputs: Sequence[str]) -> list[str]:
        return [" ".join(GERMAN.get(word, word) for word in words_of(text)) for text in inputs]


class Encoder:
    """Counts the words of each topic."""

    input_type = "string"
    output_type = f"float32[{len(TOPICS)}]"

    def __init__(self, model_data: str | None) -> None:
        pass

    def predict_batch(self, inputs: Sequence[str]) -> np.ndarray:
        counts = [[sum(word in known for word in words_of(text)) for known in TOPICS.values()] for text in inputs]
        return np.array(counts, np.float32)


class CarefulEncoder(Encoder):
    """Says how loud and how unhappy a text is."""

    output_type = "float32[2]"

    def predict_batch(self, inputs: Sequence[str]) -> np.ndarray:
        tones = [[text.count("!"), sum(word in BAD for word in words_of(text))] for text in inputs]
        return np.array(tones, np.float32)


class Topic:
    """Chooses the topic of a letter, by its words and its tone."""

    input_type = f"words: float32[{len(TOPICS)}], tone: float32[2]"
    output_type = "label: string, sure: float64"

    def __init__(self, model_data: str | None) -> None:
        self.names = list(TOPICS)

    def predict_batch(self, inputs: dict[str, np.ndarray]) -> list[dict[str, object]]:
        scores = inputs["words"] + np.outer(inputs["tone"][:, 1], [0.5, 0.0, 0.0])
        sums = scores.sum(1)
        return [
            {"label": self.names[int(row.argmax())], "sure": float(row.max() / total)}
            if total > 0
            else {"label": "unknown", "sure": 0.0}
            for row, total in zip(scores, sums)
        ]


class Splitter:
    """Splits a text into its sentences."""

    input_type = "string"

    def __init__(self, model_data: str | None) -> None:
        pass

    def predict_batch(self, inputs: Sequence[str]) -> list[list[str]]:
        return [[part.strip() for part in re.split(r"[.!?]+", text) if part.strip()] for text in inputs]


class Mood:
    """Says whether a sentence is good or bad news."""

    input_type = output_type = "string"

    def __init__(self, model_data: str | None) -> None:
        pass

    def predict_batch(self, inputs: Sequence[str]) -> list[str]:
        return ["bad" if BAD & set(words_of(text)) else "good" for text in inputs]
