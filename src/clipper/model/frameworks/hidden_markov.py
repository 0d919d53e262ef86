"""hmmlearn's hidden Markov models as models of sequences. The model's own pickle has imported hmmlearn."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clipper.model.model import Array, Inputs
from clipper.values.types import DType, InputType


def sequence_model(model: Any) -> Any:
    """Wrap a hidden Markov model, or a dict of them by label, to answer sequences; return other objects unchanged."""
    if _is_hidden_markov(model):
        return StateDecoder(model)
    if isinstance(model, dict) and model and all(map(_is_hidden_markov, model.values())):
        return SequenceClassifier(model)
    return model


def _is_hidden_markov(model: Any) -> bool:
    kind = getattr(sys.modules.get("hmmlearn.base"), "_AbstractHMM", None)
    return kind is not None and isinstance(model, kind)


class StateDecoder:
    """Answers the state of a sequence at each step."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.input_type = _input_type(model)

    def predict(self, sequences: Inputs) -> list[Array]:
        return [self._model.predict(_steps(sequence)) for sequence in sequences]

    def predict_proba(self, sequences: Inputs) -> list[Array]:
        """Return an array (steps, states) for each sequence."""
        return [self._model.predict_proba(_steps(sequence)) for sequence in sequences]


class SequenceClassifier:
    """Answers the label whose model gives a sequence the largest likelihood, like HTK's recognisers."""

    def __init__(self, models: Mapping[Any, Any]) -> None:
        self._models = models
        self.input_type = _input_type(next(iter(models.values())))

    def predict(self, sequences: Inputs) -> list[Any]:
        return [max(scores, key=scores.__getitem__) for scores in self._scores(sequences)]

    def predict_proba(self, sequences: Inputs) -> list[dict[Any, float]]:
        """Return the probability of each label for each sequence, if all labels are equally likely beforehand."""
        return [_posterior(scores) for scores in self._scores(sequences)]

    def _scores(self, sequences: Inputs) -> Sequence[dict[Any, float]]:
        """Return the log-likelihoods by label."""
        return [
            {label: float(model.score(_steps(sequence))) for label, model in self._models.items()}
            for sequence in sequences
        ]


def _posterior(scores: Mapping[Any, float]) -> dict[Any, float]:
    # Relative to the largest, because the likelihoods themselves are far too small for a float.
    highest = max(scores.values())
    likelihoods = {label: float(np.exp(score - highest)) for label, score in scores.items()}
    total = sum(likelihoods.values())
    return {label: likelihood / total for label, likelihood in likelihoods.items()}


def _input_type(model: Any) -> InputType:
    """Return the type of a sequence of any length: of symbols, or of vectors of the features of the training."""
    if type(model).__name__.endswith("CategoricalHMM"):
        return InputType(DType.INT64, (None,))
    return InputType(DType.FLOAT64, (None, int(model.n_features)))


def _steps(sequence: Any) -> Array:
    array = np.asarray(sequence)
    return array.reshape(-1, 1) if array.ndim == 1 else array
