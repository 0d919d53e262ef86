"""A text classifier and texts of 10 to 10,000 characters to ask it: Python's own help pages, which every Python has."""

import json
import random
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics

import joblib
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

SHORTEST, LONGEST = 10, 10_000
_TRAINED_ON, _ASKED = 2_000, 2_000


@cache
def pages() -> dict[str, str]:
    """By topic, those that the longest text fits into."""
    return {topic: text for topic, text in topics.items() if len(text) > LONGEST}


def drawn(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts with their topics. There are as many of 10 to 100 characters as of 1,000 to 10,000."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        topic, text = rng.choice(sorted(pages().items()))
        length = round(SHORTEST * (LONGEST / SHORTEST) ** rng.random())
        start = rng.randrange(len(text) - length + 1)
        found.append((text[start : start + length], topic))
    return found


def train(folder: Path) -> Path:
    """Fit a classifier that tells a text's topic; return the file that it was saved to."""
    texts, labels = zip(*drawn(_TRAINED_ON, seed=1))
    path = folder / "topics.joblib"
    joblib.dump(make_pipeline(TfidfVectorizer(), LinearSVC()).fit(texts, labels), path)
    return path


def write_bodies(folder: Path) -> Path:
    """Write one body a line, and return the file."""
    path = folder / "topics.jsonl"
    path.write_text("".join(json.dumps({"input": text}) + "\n" for text, _ in drawn(_ASKED, seed=2)))
    return path
