"""The pipelines that are measured: four shapes of InferLine and Nexus, of models that sleep and of ones that compute.

InferLine is Crankshaw et al., SoCC 2020; Nexus is Shen et al., SOSP 2019.
"""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from benchmarks.harness import texts
from benchmarks.models.piped import BOXES, FRENCH, GERMAN, SIDE
from benchmarks.models.piped import VECTOR as WORD
from clipper.cli.capacity.simulation import Step

MODELS = Path(__file__).parents[1] / "models"
VECTOR, WIDTH = "float64[4]", 16
ENCODED = f"float64[{WIDTH}]"
# The hidden layers of nets: a row takes some milliseconds of a processor, so that models and not the worker are what
# bounds a pipeline.
WIDE, DEEP = (2048, 2048, 2048), (4096, 4096)
_TEXTS = 1000


@dataclass(frozen=True, slots=True)
class Shape:
    """A pipeline.

    Attributes:
        steps: of slept models, what they take; None of others.
        wiring: the keys of each step in clipper.yaml, besides ``links``; a step's model has the step's name.
        output: the key ``output`` in clipper.yaml.
        models: the keys of each model, made in a folder that they may write into.
        second: the models of the second step, and how many rows a query makes of them.
        bodies: writes a file with what is asked; None for random inputs of the type.
    """

    slo_ms: int
    input_type: str
    wiring: Mapping[str, Mapping[str, Any]]
    models: Callable[[Path], dict[str, dict[str, Any]]]
    second: tuple[tuple[str, ...], int]
    steps: tuple[Step, ...] | None = None
    output: Any = None
    bodies: Callable[[Path], Path] | None = None

    def manifest(self, name: str, folder: Path) -> dict[str, Any]:
        """Return what ``clipper apply`` is told; JSON is YAML."""
        models = {
            f"{name}-{step}": {"folder": str(MODELS), "cache": False, **keys}
            for step, keys in self.models(folder).items()
        }
        application = {
            "input_type": self.input_type,
            "slo_ms": self.slo_ms,
            "default_output": None,
            "steps": {step: {"links": [f"{name}-{step}"], **keys} for step, keys in self.wiring.items()},
            **({} if self.output is None else {"output": self.output}),
        }
        return {"models": models, "applications": {name: application}}


def slept(
    slo_ms: int,
    steps: tuple[Step, ...],
    wiring: Mapping[str, Mapping[str, Any]],
    second: tuple[tuple[str, ...], int],
    output: Any = None,
    **answers: str,
) -> Shape:
    def models(folder: Path) -> dict[str, dict[str, Any]]:
        made: dict[str, dict[str, Any]] = {}
        for step in steps:
            data = folder / f"{step.name}.json"
            answer = answers.get(step.name, "row")
            data.write_text(json.dumps({"batch_s": step.fixed_s, "row_s": step.row_s, "answers": answer}))
            record = f"left: {VECTOR}, right: {VECTOR}"
            input_type = record if isinstance(wiring[step.name].get("input"), dict) else VECTOR
            output_type = {"boxes": f"float64[{BOXES},4]", "language": "string"}.get(answer, VECTOR)
            made[step.name] = {
                "model": "piped:Slept",
                "data": str(data),
                "input_type": input_type,
                "output_type": output_type,
            }
        return made

    return Shape(slo_ms, VECTOR, wiring, models, second, steps, output)


RANKED = {"left": {}, "right": {}, "rank": {"input": {"left": "left", "right": "right"}}}
CHAINED = {"first": {}, "second": {"input": "first"}, "third": {"input": "second"}}
BOXED = {"detector": {}, "classifier": {"for_each": "detector", "input": "item"}}
TRANSLATED = {
    "language": {},
    "german": {"when": 'language == "de"'},
    "french": {"when": 'language == "fr"'},
}
SLEPT = {
    "chain": slept(
        200,
        (Step("first", (), 0.008, 0.001), Step("second", (0,), 0.016, 0.002), Step("third", (1,), 0.004, 0.0004)),
        CHAINED,
        (("second",), 1),
    ),
    "boxes": slept(
        200,
        (Step("detector", (), 0.01, 0.002), Step("classifier", (0,), 0.006, 0.0008, rows=(BOXES,))),
        BOXED,
        (("classifier",), BOXES),
        detector="boxes",
    ),
    "translators": slept(
        150,
        (
            Step("language", (), 0.004, 0.0004),
            Step("german", (0,), 0.015, 0.003, asked=(0.0, 0.5)),
            Step("french", (0,), 0.015, 0.002, asked=(0.5, 1.0)),
        ),
        TRANSLATED,
        (("german", "french"), 1),
        "german or french",
        language="language",
    ),
    "ranker": slept(
        150,
        (
            Step("left", (), 0.006, 0.001),
            Step("right", (), 0.012, 0.002),
            Step("rank", (0, 1), 0.006, 0.0005),
        ),
        RANKED,
        (("rank",), 1),
    ),
}


def _net(
    folder: Path, name: str, widths: list[int], input_type: str, labels: list[str] | None = None
) -> dict[str, Any]:
    data = folder / f"{name}.json"
    data.write_text(json.dumps({"widths": widths, "labels": labels}))
    output_type = f"float64[{widths[-1]}]" if labels is None else "string"
    return {"model": "piped:Net", "data": str(data), "input_type": input_type, "output_type": output_type}


def chain_models(folder: Path) -> dict[str, dict[str, Any]]:
    topics = sorted(texts.pages())
    return {
        "first": {"model": "piped:tidy", "input_type": "string", "output_type": "string"},
        "second": _net(folder, "second", [WORD, *DEEP, WIDTH], "string"),
        "third": _net(folder, "third", [WIDTH, *DEEP, len(topics)], ENCODED, topics),
    }


def boxes_models(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        "detector": {
            "model": "piped:cut",
            "input_type": f"float64[{BOXES * SIDE * SIDE}]",
            "output_type": f"float64[{BOXES},{SIDE * SIDE}]",
        },
        "classifier": _net(
            folder, "classifier", [SIDE * SIDE, *WIDE, 10], f"float64[{SIDE * SIDE}]", list("0123456789")
        ),
    }


def translator_models(folder: Path) -> dict[str, dict[str, Any]]:
    written, languages = zip(*_letters(_TEXTS, seed=1), strict=True)
    found = make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(1, 3)), MultinomialNB()).fit(written, languages)
    joblib.dump(found, folder / "language.joblib")
    for name, known in (("german", GERMAN), ("french", FRENCH)):
        (folder / f"{name}.json").write_text(json.dumps(known))
    of_texts = {"input_type": "string", "output_type": "string"}
    return {
        "language": {"model": "piped:Fitted", "data": str(folder / "language.joblib"), **of_texts},
        "german": {"model": "piped:Translator", "data": str(folder / "german.json"), **of_texts},
        "french": {"model": "piped:Translator", "data": str(folder / "french.json"), **of_texts},
    }


def ranker_models(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        "left": _net(folder, "left", [WORD, *WIDE, WIDTH], "string"),
        "right": _net(folder, "right", [WORD, *DEEP, WIDTH], "string"),
        "rank": _net(folder, "rank", [2 * WIDTH, *WIDE, 2], f"left: {ENCODED}, right: {ENCODED}", ["first", "second"]),
    }


def _letters(many: int, seed: int) -> list[tuple[str, str]]:
    chance = random.Random(seed)
    made = []
    for _ in range(many):
        language, words = chance.choice([("de", list(GERMAN)), ("fr", list(FRENCH))])
        made.append((" ".join(chance.choices(words, k=chance.randint(5, 200))) + f" {chance.random():.6f}", language))
    return made


def _write(folder: Path, name: str, inputs: list[Any]) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"input": each}) + "\n" for each in inputs))
    return path


def _ask_texts(folder: Path) -> Path:
    return _write(folder, "texts", [text for text, _ in texts.drawn(2 * _TEXTS, seed=2)])


def _ask_letters(folder: Path) -> Path:
    return _write(folder, "letters", [text for text, _ in _letters(2 * _TEXTS, seed=2)])


COMPUTED = {
    "chain": Shape(200, "string", CHAINED, chain_models, (("second",), 1), bodies=_ask_texts),
    "boxes": Shape(200, f"float64[{BOXES * SIDE * SIDE}]", BOXED, boxes_models, (("classifier",), BOXES)),
    "translators": Shape(
        150, "string", TRANSLATED, translator_models, (("german", "french"), 1), None, "german or french", _ask_letters
    ),
    "ranker": Shape(200, "string", RANKED, ranker_models, (("rank",), 1), bodies=_ask_texts),
}
