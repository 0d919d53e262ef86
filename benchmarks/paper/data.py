"""The data sets, out of Debian packages that ``scripts/apt-unpack.sh`` has unpacked."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.kept import folder

FASHION_MNIST = Path("usr/share/datasets/fashion-mnist")
VOWEL = Path("usr/lib/R/site-library/mlbench/data/Vowel.rda")

TRAINED_ON = 20_000
# Of the images that the data set offers for training, the last ones are queries here.
STREAMED = 20_000

PIXELS = 784
_IMAGES_AT_BYTE, _LABELS_AT_BYTE = 16, 8


class DataMissing(Exception):
    """A data set is not in the cache."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Inputs (rows, features) with their labels (rows,)."""

    inputs: NDArray[np.float64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> "Labelled":
        return Labelled(self.inputs[rows], self.labels[rows])


def concatenated(parts: Sequence[Labelled]) -> Labelled:
    return Labelled(np.concatenate([part.inputs for part in parts]), np.concatenate([part.labels for part in parts]))


@dataclass(frozen=True, slots=True)
class FashionMnist:
    """70,000 pictures of clothes, 28 by 28, pixels from 0 to 255, 10 classes.

    Attributes:
        train: the first 20,000 of the data set's training images.
        stream: its last 20,000 training images, which no model has seen.
        test: its 10,000 test images.
    """

    train: Labelled
    stream: Labelled
    test: Labelled

    @property
    def held_out(self) -> Labelled:
        """``stream`` and ``test``: all that no model has seen."""
        return concatenated([self.stream, self.test])


@dataclass(frozen=True, slots=True)
class Vowel:
    """990 frames of recorded speech: 15 speakers say 11 vowels; 9 features; six frames of each.

    Of each six the first three are in ``train``, the last three in ``held_out``.

    Attributes:
        train: by speaker, 33 frames each.
        held_out: by speaker, 33 frames each.
    """

    train: tuple[Labelled, ...]
    held_out: tuple[Labelled, ...]


@cache
def fashion_mnist() -> FashionMnist:
    """Raises DataMissing."""
    seen = Labelled(_images("train"), _labels("train"))
    test = Labelled(_images("t10k"), _labels("t10k"))
    return FashionMnist(seen[:TRAINED_ON], seen[len(seen) - STREAMED :], test)


def _images(part: str) -> NDArray[np.float64]:
    return _read_idx(f"{part}-images-idx3-ubyte.gz", _IMAGES_AT_BYTE).reshape(-1, PIXELS).astype(np.float64)


def _labels(part: str) -> NDArray[np.int64]:
    return _read_idx(f"{part}-labels-idx1-ubyte.gz", _LABELS_AT_BYTE).astype(np.int64)


def _read_idx(name: str, at_byte: int) -> NDArray[np.uint8]:
    with gzip.open(_unpacked(FASHION_MNIST / name)) as file:
        return np.frombuffer(file.read(), np.uint8, offset=at_byte)


@cache
def vowel() -> Vowel:
    """Raises DataMissing."""
    import pyreadr  # an extra: tests do without

    frame = pyreadr.read_r(str(_unpacked(VOWEL)))["Vowel"]
    speakers = frame["V1"].astype(int).to_numpy()
    features = frame[[f"V{number}" for number in range(2, 11)]].to_numpy(np.float64)
    everyone = Labelled(features, frame["Class"].cat.codes.to_numpy(np.int64))
    repetition = repetitions(speakers, everyone.labels)
    groups = range(int(speakers.max()) + 1)
    return Vowel(
        tuple(everyone[(speakers == group) & (repetition < 3)] for group in groups),
        tuple(everyone[(speakers == group) & (repetition >= 3)] for group in groups),
    )


def repetitions(speakers: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row, how many rows of its speaker and label come before it."""
    seen: dict[tuple[int, int], int] = {}
    counts = np.zeros(len(labels), np.int64)
    for row, pair in enumerate(zip(speakers.tolist(), labels.tolist())):
        counts[row] = seen[pair] = seen.get(pair, -1) + 1
    return counts


def _unpacked(path: Path) -> Path:
    whole = folder() / "debian" / path
    if not whole.is_file():
        raise DataMissing(f"{whole} is not there: `make paper` and `make gpu` fetch the Debian packages that hold it")
    return whole
