"""A model that asks another as often as it needs, which no graph of steps can say."""

import re
from collections.abc import Sequence

import clipper


class Culprit:
    """Finds a sentence that is bad news, by halving each letter until one sentence is left."""

    input_type = output_type = "string"

    def __init__(self, model_data: str | None) -> None:
        pass

    def predict_batch(self, inputs: Sequence[str]) -> list[str]:
        letters = [[part.strip() for part in re.split(r"[.!?]+", text) if part.strip()] for text in inputs]
        while long := [place for place, sentences in enumerate(letters) if len(sentences) > 1]:
            halves = [letters[place][: len(letters[place]) // 2] for place in long]
            # One ask for all letters: their halves are batched, and what was asked before is cached.
            moods = clipper.ask("moods.mood", [". ".join(half) for half in halves])
            for place, half, mood in zip(long, halves, moods):
                letters[place] = half if mood == "bad" else letters[place][len(half) :]
        return [sentences[0] if sentences else "" for sentences in letters]
