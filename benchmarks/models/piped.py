"""Models for the steps of pipelines. One takes as long as it is told to; the others compute."""

import json
import re
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import joblib
import numpy as np
from numpy.typing import NDArray

# The boxes of a picture, and the side of each.
BOXES, SIDE = 4, 8
# The vectors of words, and their length.
WORDS, VECTOR = 8192, 64
GERMAN = {"das": "the", "ist": "is", "und": "and", "nicht": "not", "ein": "a", "mit": "with", "auf": "on", "von": "of"}
FRENCH = {"le": "the", "est": "is", "et": "and", "pas": "not", "un": "a", "avec": "with", "sur": "on", "de": "of"}


class Slept:
    """``model_data`` is a JSON file: ``batch_s`` of each batch, ``row_s`` of each row, and what it ``answers``."""

    def __init__(self, model_data: str) -> None:
        told = json.loads(Path(model_data).read_text())
        self._batch_s, self._row_s, self._answers = told["batch_s"], told["row_s"], told["answers"]

    def predict_batch(self, inputs: Any) -> Any:
        rows = inputs["left"] if isinstance(inputs, dict) else inputs
        time.sleep(self._batch_s + len(rows) * self._row_s)
        if self._answers == "boxes":
            return np.repeat(rows[:, None, :], BOXES, axis=1)
        if self._answers == "language":
            return ["de" if row[-1] < 0.5 else "fr" for row in rows]
        return rows


def cut(inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut pictures (batch, 256) of 16 x 16 into boxes (batch, 4, 64)."""
    pictures = inputs.reshape(-1, 2, SIDE, 2, SIDE)
    return np.ascontiguousarray(pictures.swapaxes(2, 3)).reshape(len(inputs), BOXES, SIDE * SIDE)


def tidy(inputs: Sequence[str]) -> list[str]:
    return [re.sub(r"\s+", " ", re.sub(r"[^\w\s]", " ", text)).strip().lower() for text in inputs]


class Translator:
    """Each word becomes the translation of the known word with the nearest vector (Mikolov et al. 2013).

    ``model_data`` is a JSON file with the translations of some words. Vectors are random, which takes as long.
    """

    def __init__(self, model_data: str) -> None:
        self._known: dict[str, str] = json.loads(Path(model_data).read_text())
        self._places = {word: place for place, word in enumerate(self._known)}
        self._words = [*self._known.values()]
        self._vectors = _random_vectors()

    def predict_batch(self, inputs: Sequence[str]) -> list[str]:
        return [" ".join(self._translated(text.split())) for text in inputs]

    def _translated(self, words: list[str]) -> list[str]:
        places = [self._places.get(word, len(self._places) + crc32(word.encode()) % 1000) for word in words]
        nearest = (self._vectors[places] @ self._vectors.T).argmax(axis=1)
        return [
            self._words[place] if place < len(self._words) else word
            for word, place in zip(words, nearest.tolist(), strict=True)
        ]


class Net:
    """Fully connected layers with random weights, which take as long as trained ones.

    A text is the mean of its words' vectors, as in a deep averaging network (Iyyer et al. 2015). ``model_data`` is a
    JSON file: ``widths`` of all layers, from the input's on, and ``labels``, of which the answer is one if there are
    any.
    """

    def __init__(self, model_data: str) -> None:
        told = json.loads(Path(model_data).read_text())
        widths, self._labels = told["widths"], told["labels"]
        chance = np.random.default_rng(0)
        self._layers = [
            chance.standard_normal(shape, np.float32) * np.float32((2.0 / shape[0]) ** 0.5)
            for shape in pairwise(widths)
        ]
        self._vectors = _random_vectors()

    def predict_batch(self, inputs: Any) -> Any:
        if isinstance(inputs, dict):
            rows = np.hstack([inputs["left"], inputs["right"]]).astype(np.float32)
        elif isinstance(inputs, np.ndarray):
            rows = inputs.astype(np.float32)
        else:
            rows = np.stack([self._mean(text) for text in inputs])
        for layer in self._layers[:-1]:
            rows = np.maximum(rows @ layer, 0.0)
        rows = rows @ self._layers[-1]
        return [self._labels[place] for place in rows.argmax(axis=1)] if self._labels else rows.astype(np.float64)

    def _mean(self, text: str) -> NDArray[np.float32]:
        places = [crc32(word.encode()) % WORDS for word in text.split()]
        return np.asarray(self._vectors[places or [0]].mean(axis=0))


def _random_vectors() -> NDArray[np.float32]:
    vectors = np.random.default_rng(1).standard_normal((WORDS, VECTOR), np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


class Fitted:
    """A classifier of scikit-learn: ``model_data`` is its file."""

    def __init__(self, model_data: str) -> None:
        self._classifier = joblib.load(model_data)

    def predict_batch(self, inputs: Sequence[str]) -> list[str]:
        return [str(label) for label in self._classifier.predict(inputs)]
