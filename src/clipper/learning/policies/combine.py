"""Combines several models' outputs into one answer with a confidence.

Outputs are JSON text, in any order; ties go to the model that was linked first. A selected model without an output,
because it was late or failed, has no say in the answer, and counts as disagreeing.
"""

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import partial

import msgspec

from clipper.learning.mathematics.json_values import Array, is_same, parse_array, value_key
from clipper.learning.mathematics.parameters import check_choice, check_number

Outputs = Mapping[str, bytes]

DEFAULT_TOLERANCE = 0.1
# Far above the rounding errors of adding weights, and below any model's weight.
_ROUNDING = 1e-9
_NULL = b"null"
# Number of labels, if it is not given.
DEFAULT_CLASSES = 10


class Combined(msgspec.Struct, frozen=True, gc=False):
    """The answer of several outputs. ``output`` is JSON text; ``confidence`` is in [0, 1]."""

    output: bytes
    confidence: float


# Combines outputs of the selected models, each with a weight of at least 0. Models that answered count alike if all of
# their weights are 0. ``Outputs`` has the models that answered, at least one.
Combiner = Callable[[Sequence[str], Sequence[float], Outputs], Combined]


def vote(models: Sequence[str], weights: Sequence[float], outputs: Outputs) -> Combined:
    """Return the value with the most weight. The confidence is its weight over the weight of all selected models.

    Equal JSON values vote together: ``3`` and ``3.0`` do; ``true`` and 1 do not.
    """
    if len(models) == 1:
        return Combined(outputs[models[0]], 1.0)
    outputs = _said(outputs)
    weights = _usable(models, weights, outputs)
    keys = _keys(models, outputs)
    blocs: dict[Hashable, float] = {}
    for model, weight in zip(models, weights):
        if model in outputs:
            blocs[keys[model]] = blocs.get(keys[model], 0.0) + weight
    # max() takes the first of equals, and blocs stand in the order of the models.
    winner = max(blocs, key=lambda key: blocs[key])
    output = next(outputs[model] for model in models if model in outputs and keys[model] == winner)
    return Combined(output, _share(blocs[winner], weights))


def vote_is_settled(
    models: Sequence[str], weights: Sequence[float], outputs: Outputs, lost: Collection[str], threshold: float
) -> bool:
    """Whether no missing output can change a vote's winner, or whether its confidence reaches ``threshold``.

    Args:
        weights: one for each model.
        outputs: by model, as far as they have come.
        lost: models that have failed, whose outputs will not come.
        threshold: the application's.
    """
    lost = {*lost, *(model for model, output in outputs.items() if output == _NULL)}
    outputs = {model: output for model, output in outputs.items() if output != _NULL}
    if not any(weight > 0 for model, weight in zip(models, weights) if model in outputs):
        return False
    keys = _keys(models, outputs)
    blocs: dict[Hashable, float] = {}
    missing = 0.0
    for model, weight in zip(models, weights):
        if model in outputs:
            blocs[keys[model]] = blocs.get(keys[model], 0.0) + weight
        elif model not in lost:
            missing += weight
    first, second = [*sorted(blocs.values(), reverse=True), 0.0][:2]
    # A tie does not settle the vote, since the order of models would decide it.
    if first - second <= missing + _ROUNDING:
        return False
    total = math.fsum(weights)
    return first / total >= threshold or (first + missing) / total < threshold - _ROUNDING


def blocs(models: Sequence[str], outputs: Outputs) -> list[list[str]]:
    """Group the models whose outputs are equal JSON values, as a vote does, in the order of the models."""
    keys = _keys(models, outputs)
    found: dict[Hashable, list[str]] = {}
    for model in models:
        found.setdefault(keys[model], []).append(model)
    return list(found.values())


def mean(
    models: Sequence[str], weights: Sequence[float], outputs: Outputs, tolerance: float = DEFAULT_TOLERANCE
) -> Combined:
    """Return the weighted mean of numbers, or of vectors element by element. For the confidence see ``_average``."""
    return _average(models, weights, outputs, tolerance, _weighted_mean)


def median(
    models: Sequence[str], weights: Sequence[float], outputs: Outputs, tolerance: float = DEFAULT_TOLERANCE
) -> Combined:
    """Return the weighted median of numbers, or of vectors by element: one model's nonsense cannot move it far."""
    return _average(models, weights, outputs, tolerance, _weighted_median)


COMBINERS = ("vote", "mean", "median")


def make_combiner(name: str, tolerance: float = DEFAULT_TOLERANCE) -> Combiner:
    """Return ``vote``, ``mean`` or ``median``. ``tolerance``: how far a number may be off a mean or median and still
    agree with it: by this much, or, if the answer is above 1, by this share of it. For vectors, the largest difference
    and the largest number count. Raises InvalidArgument if there is no such combiner, or the tolerance is below 0.
    """
    check_choice("answer", name, COMBINERS)
    check_number("tolerance", tolerance, 0)
    if name == "vote":
        return vote
    return partial(mean if name == "mean" else median, tolerance=tolerance)


def guessed_loss(loss: float, classes: float = DEFAULT_CLASSES) -> float:
    """Return the expected loss of an output that is not the answer, given the answer's loss.

    If the answer is right, other outputs are wrong. If it is wrong, one in ``classes - 1`` other outputs is right.
    """
    return 1 - loss / (classes - 1)


def behind(answer: bytes, outputs: Outputs) -> list[str]:
    """Return the models whose output is ``answer``; or agrees with it, for a mean or median that no model answered."""
    same = [model for model, output in outputs.items() if is_same(output, answer)]
    number = None if same else parse_array(answer)
    if number is None:
        return same
    arrays = {model: parse_array(output) for model, output in outputs.items()}
    return [
        model
        for model, array in arrays.items()
        if array is not None and array.shape == number.shape and _agrees(array, number, DEFAULT_TOLERANCE)
    ]


_Average = Callable[[Sequence[float], Sequence[float]], float]


def _average(
    models: Sequence[str], weights: Sequence[float], outputs: Outputs, tolerance: float, average: _Average
) -> Combined:
    """Average the outputs whose numbers have the shape with the most weight; vote if no output is a number."""
    if len(models) == 1:
        return Combined(outputs[models[0]], 1.0)
    arrays = _arrays(models, _usable(models, weights, outputs), outputs)
    if not arrays:
        return vote(models, weights, outputs)
    usable = _usable(models, weights, arrays)
    parts = [(arrays[model], weight) for model, weight in zip(models, usable) if model in arrays]
    of_parts = [weight for _, weight in parts]
    columns = zip(*(array.numbers for array, _ in parts))
    answer = Array(parts[0][0].shape, tuple(average(column, of_parts) for column in columns))
    agreeing = math.fsum(weight for array, weight in parts if _agrees(array, answer, tolerance))
    return Combined(answer.encode(), _share(agreeing, usable))


def _agrees(array: Array, answer: Array, tolerance: float) -> bool:
    size = max(map(abs, answer.numbers))
    return max(abs(a - b) for a, b in zip(array.numbers, answer.numbers)) <= tolerance * max(1.0, size)


def _arrays(models: Sequence[str], weights: Sequence[float], outputs: Outputs) -> dict[str, Array]:
    arrays = {model: array for model in models if model in outputs and (array := parse_array(outputs[model]))}
    behind: dict[tuple[int, ...], float] = {}
    for model, weight in zip(models, weights):
        if model in arrays:
            behind[arrays[model].shape] = behind.get(arrays[model].shape, 0.0) + weight
    shape = max(behind, key=lambda shape: behind[shape], default=None)
    return {model: array for model, array in arrays.items() if array.shape == shape}


def _weighted_mean(numbers: Sequence[float], weights: Sequence[float]) -> float:
    total = math.fsum(weights)
    # Each number is scaled before it is added, so that large numbers do not overflow.
    return math.fsum(number * (weight / total) for number, weight in zip(numbers, weights))


def _weighted_median(numbers: Sequence[float], weights: Sequence[float]) -> float:
    """Return the weighted median; the middle of a gap if half the weight lies on either side of it."""
    pairs = sorted((number, weight) for number, weight in zip(numbers, weights) if weight > 0)
    half = math.fsum(weights) / 2
    below = 0.0
    for index, (number, weight) in enumerate(pairs[:-1]):
        below += weight
        if math.isclose(below, half):
            return number / 2 + pairs[index + 1][0] / 2
        if below > half:
            return number
    return pairs[-1][0]


def _said(outputs: Outputs) -> Outputs:
    """Return the outputs without null, the text of NaN and infinity; all outputs if all are null."""
    if _NULL not in outputs.values():
        return outputs
    return {model: output for model, output in outputs.items() if output != _NULL} or outputs


def _keys(models: Sequence[str], outputs: Outputs) -> Mapping[str, Hashable]:
    """Return the keys to compare outputs by: their texts if all are equal, else their values."""
    texts = dict.fromkeys(outputs.values())
    if len(texts) == 1:
        return outputs
    keys = {text: value_key(text) for text in texts}
    return {model: keys[outputs[model]] for model in models if model in outputs}


def _usable(models: Sequence[str], weights: Sequence[float], present: Mapping[str, object]) -> Sequence[float]:
    """Return ``weights``, or equal weights if those present have none."""
    if any(weight > 0 for model, weight in zip(models, weights) if model in present):
        return weights
    return (1.0,) * len(models)


def _share(agreeing: float, weights: Sequence[float]) -> float:
    return min(agreeing / math.fsum(weights), 1.0)
