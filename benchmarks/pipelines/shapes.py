"""The pipelines that are measured: four shapes of InferLine and Nexus, with models that sleep and with small nets.

InferLine is Crankshaw et al., SoCC 2020; Nexus is Shen et al., SOSP 2019.
"""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from benchmarks.harness import texts
from benchmarks.models.piped import BOXES, FRENCH, GERMAN, SIDE
from clipper.cli.capacity.simulation import Step

MODELS = Path(__file__).parents[1] / "models"
VECTOR, WIDTH = "float64[4]", 16
ENCODED = f"float64[{WIDTH}]"
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


def _dumped(folder: Path, name: str, estimator: Any) -> str:
    path = folder / f"{name}.joblib"
    joblib.dump(estimator, path)
    return str(path)


def _encoder(analyzer: str) -> Any:
    drawn, _ = zip(*texts.drawn(_TEXTS, seed=1), strict=True)
    ngrams = (1, 1) if analyzer == "word" else (2, 3)
    return make_pipeline(
        TfidfVectorizer(analyzer=analyzer, ngram_range=ngrams, max_features=5000), TruncatedSVD(WIDTH, random_state=0)
    ).fit(drawn)


def _fitted(folder: Path, name: str, estimator: Any, input_type: str, output_type: str) -> dict[str, Any]:
    data = _dumped(folder, name, estimator)
    return {"model": "piped:Fitted", "data": data, "input_type": input_type, "output_type": output_type}


def chain_models(folder: Path) -> dict[str, dict[str, Any]]:
    drawn, topics = zip(*texts.drawn(_TEXTS, seed=1), strict=True)
    encoder = _encoder("word")
    forest = RandomForestClassifier(30, n_jobs=1, random_state=0).fit(encoder.transform(drawn), topics)
    return {
        "first": {"model": "piped:tidy", "input_type": "string", "output_type": "string"},
        "second": _fitted(folder, "second", encoder, "string", ENCODED),
        "third": _fitted(folder, "third", forest, ENCODED, "string"),
    }


def boxes_models(folder: Path) -> dict[str, dict[str, Any]]:
    chance = np.random.default_rng(0)
    pictures, labels = chance.random((_TEXTS, SIDE * SIDE)), chance.integers(0, 10, _TEXTS)
    network = LogisticRegression(max_iter=20).fit(pictures, labels)
    return {
        "detector": {
            "model": "piped:cut",
            "input_type": f"float64[{BOXES * SIDE * SIDE}]",
            "output_type": f"float64[{BOXES},{SIDE * SIDE}]",
        },
        "classifier": _fitted(folder, "classifier", network, f"float64[{SIDE * SIDE}]", "string"),
    }


def translator_models(folder: Path) -> dict[str, dict[str, Any]]:
    written, languages = zip(*_letters(_TEXTS, seed=1), strict=True)
    found = make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(1, 3)), MultinomialNB()).fit(written, languages)
    return {
        "language": _fitted(folder, "language", found, "string", "string"),
        "german": {"model": "piped:from_german", "input_type": "string", "output_type": "string"},
        "french": {"model": "piped:from_french", "input_type": "string", "output_type": "string"},
    }


def ranker_models(folder: Path) -> dict[str, dict[str, Any]]:
    chance = np.random.default_rng(0)
    pairs, labels = chance.random((_TEXTS, 2 * WIDTH)), chance.integers(0, 2, _TEXTS)
    ranker = LogisticRegression().fit(pairs, labels)
    return {
        "left": _fitted(folder, "left", _encoder("word"), "string", ENCODED),
        "right": _fitted(folder, "right", _encoder("char"), "string", ENCODED),
        "rank": _fitted(folder, "rank", ranker, f"left: {ENCODED}, right: {ENCODED}", "string"),
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
    "chain": Shape(100, "string", CHAINED, chain_models, (("second",), 1), bodies=_ask_texts),
    "boxes": Shape(50, f"float64[{BOXES * SIDE * SIDE}]", BOXED, boxes_models, (("classifier",), BOXES)),
    "translators": Shape(
        50, "string", TRANSLATED, translator_models, (("german", "french"), 1), None, "german or french", _ask_letters
    ),
    "ranker": Shape(100, "string", RANKED, ranker_models, (("rank",), 1), bodies=_ask_texts),
}
