"""Finds out which columns an estimator takes that was fitted on a DataFrame. It does not import scikit-learn.

An estimator keeps the names of its columns, and not their types. The types follow from the transformers that take the
columns: an encoder knows its categories, a vectorizer takes texts, a scaler numbers. Types that do not follow are
tried: a column has numbers if the estimator answers a row with a number there and refuses a row with a text, and texts
if it is the other way round. That is a guess: numbers may stand for a bool. A column may lack values if the
estimator answers a row without its value.
"""

import importlib
import itertools
import json
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from clipper.errors import ContainerFailed
from clipper.model.frameworks.table import column_of, is_alike, number, of_categories
from clipper.model.model import Columns, Values
from clipper.values.records import MAX_FIELDS, Field, RecordType
from clipper.values.types import DType

# Answers a batch of columns of a record, or raises.
Try = Callable[[RecordType, Columns], object]

# Attributes in which meta-estimators hold the estimator, or the estimators, that were fitted on their columns.
_INNER = ("best_estimator_", "regressor_", "classifier_", "estimator_", "estimators_")
# These transformers of scikit-learn take more than numbers: the data that they are fitted with decides.
_TAKE_ANYTHING = ("FunctionTransformer", "FeatureHasher", "DictVectorizer", "DummyClassifier", "ColumnTransformer")
# The most columns without a known type that are tried in all combinations.
_MOST_TRIED = 4
# The most calls that look for columns that may lack values. Columns that were not tried then may not lack any.
_MOST_CALLS = 128
# Wide tables take long to answer, so there are fewer calls: at most this many values in all calls together.
_MOST_VALUES, _LEAST_CALLS = 4000, 8
# The text in trial rows. Functions of dates take it, and also numbers, so the type of their columns stays unknown.
_TEXT = "2000-01-01"
# The longest ``--input-type`` of a guess that is shown. A container's warning has room for it.
_MOST_CHARACTERS = 3000
# A type lists no more categories, since it is in each message about the model.
_MOST_CATEGORIES = 200


def names_of(estimator: Any) -> list[str] | None:
    """Return the names of the columns that an estimator was fitted on; None if it was not fitted on named columns."""
    for found in _with_inner(estimator):
        names = getattr(found, "feature_names_in_", None)
        if names is not None and 0 < len(names) <= MAX_FIELDS and all(isinstance(name, str) for name in names):
            return [str(name) for name in names]
    return None


def find_record(
    estimator: Any, names: Sequence[str], declared: RecordType | None, sample: RecordType | None, answer: Try
) -> tuple[RecordType, str]:
    """Return the record that an estimator takes; and a warning that names the columns whose types are guesses, or "".

    Args:
        names: the names of the columns that it was fitted on.
        declared: the columns that the deployment declares. They bind, and are not looked for.
        sample: the columns that the deployment's sample shows.
        answer: asks the estimator.

    Raises:
        ContainerFailed: the type of a column is not known. The message has the command that declares it.
    """
    kinds = _kinds(estimator, names)
    # Without the columns that the estimator drops.
    taken = [name for name in names if name in kinds]
    bound = {field.name: field for field in declared.fields} if declared is not None else {}
    shown = {field.name: field for field in sample.fields} if sample is not None else {}
    known: dict[str, Field] = {}
    for name in taken:
        found = kinds[name] or shown.get(name)
        own = bound.get(name)
        if own is not None and (found is None or is_alike(own.type, found.type)):
            found = own
        if found is not None:
            known[name] = found
    guessed = [name for name in taken if name not in known]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if guessed:
            known |= _tried(taken, known, guessed, answer)
        if any(name not in known for name in taken):
            fields = [known.get(name) or number(name, DType.STRING) for name in taken]
            advice = f"deploy it again {_ways(fields)}, in which the types of these columns are guesses"
            raise ContainerFailed(f"{_unsaid(guessed)}: {advice}")
        record = RecordType(tuple(known[name] for name in taken))
        lacking = {name for name, field in (shown | bound).items() if field.is_nullable}
        record = _with_missing(record, lacking, [name for name in taken if name not in bound], answer)
    if not guessed:
        return record, ""
    advice = f"if a guess is wrong, such as a number for a bool, deploy it again {_ways(record.fields)}"
    return record, f"{_unsaid(guessed)}, which are guessed: {advice}"


def _unsaid(names: Sequence[str]) -> str:
    shown = [name if name.isprintable() else json.dumps(name) for name in names[:20]]
    return f"the model does not say the types of its columns {', '.join(shown)}"


def _ways(fields: Sequence[Field]) -> str:
    line = ", ".join(map(str, fields)).replace("'", "'\\''")
    shown = f": --input-type '{line}'" if len(line) <= _MOST_CHARACTERS else " in --input-type"
    return (
        "with --sample @FILE, a CSV, JSON lines or Parquet file with a row or more, or with the right types of all "
        f"columns{shown}"
    )


def _with_inner(estimator: Any) -> Iterator[Any]:
    """Yield an estimator, and the estimators in it that take the same columns."""
    yield estimator
    for name in _INNER:
        inner = getattr(estimator, name, None)
        if isinstance(inner, (list, tuple)) and inner:
            inner = inner[0]
        if inner is not None and inner is not estimator and hasattr(inner, "predict"):
            yield from _with_inner(inner)
    calibrated = getattr(estimator, "calibrated_classifiers_", None)
    if calibrated:
        yield from _with_inner(calibrated[0].estimator)


def _kinds(estimator: Any, names: Sequence[str]) -> dict[str, Field | None]:
    """Return the field of each column that is used: None if its type does not follow from the transformers."""
    steps = getattr(estimator, "steps", None)
    if isinstance(steps, list) and steps:
        return _kinds_of_steps([step for _, step in steps], names)
    if isinstance(transformers := getattr(estimator, "transformers_", None), list):
        return _kinds_of_parts(transformers, names)
    if isinstance(union := getattr(estimator, "transformer_list", None), list):
        return _merged(_kinds(step, names) for _, step in union if step not in ("drop", "passthrough"))
    inner = next(itertools.islice(_with_inner(estimator), 1, None), None)
    if inner is not None:
        return _kinds(inner, names)
    return _kinds_of_leaf(estimator, names)


def _kinds_of_steps(steps: Sequence[Any], names: Sequence[str]) -> dict[str, Field | None]:
    first, *others = [step for step in steps if step is not None and step != "passthrough"] or [None]
    if first is None:
        return {name: number(name) for name in names}
    kinds = _kinds(first, names)
    # A transformer that fills gaps keeps texts, and the encoder after it knows them.
    if others and len(getattr(first, "statistics_", ())) == len(names):
        fill = getattr(first, "fill_value", None)
        for name, field in _kinds_of_steps(others, names).items():
            known = kinds.get(name)
            if field is not None and (known is None or known.type == field.type):
                kinds[name] = replace(field, categories=tuple(one for one in field.categories if one != fill))
    return kinds


def _kinds_of_parts(transformers: Sequence[tuple[Any, ...]], names: Sequence[str]) -> dict[str, Field | None]:
    parts: list[dict[str, Field | None]] = []
    for _, transformer, columns in transformers:
        chosen = chosen_names(columns, names)
        if isinstance(transformer, str):
            if transformer == "passthrough":
                parts.append({name: number(name) for name in chosen})
        elif chosen:
            parts.append(_kinds(transformer, chosen))
    return _merged(parts)


def chosen_names(columns: Any, names: Sequence[str]) -> list[str]:
    """Return the names of the columns that a ColumnTransformer's entry chooses by names, places, a slice or a mask."""
    if isinstance(columns, str):
        return [columns]
    if isinstance(columns, slice):
        if isinstance(columns.start, str) or isinstance(columns.stop, str):
            start = names.index(columns.start) if columns.start is not None else 0
            return list(names[start : names.index(columns.stop) + 1 if columns.stop is not None else None])
        return list(names[columns])
    if isinstance(columns, (int, np.integer)):
        return [names[int(columns)]]
    chosen = list(columns)
    if chosen and all(isinstance(one, (bool, np.bool_)) for one in chosen):
        return [name for name, is_chosen in zip(names, chosen) if is_chosen]
    return [one if isinstance(one, str) else names[int(one)] for one in chosen]


def _merged(parts: Iterable[dict[str, Field | None]]) -> dict[str, Field | None]:
    """Return the fields that all parts know of their columns: a column may go to several parts."""
    merged: dict[str, Field | None] = {}
    for part in parts:
        for name, field in part.items():
            known = merged.get(name)
            # Categories say more than a type.
            if known is None or (field is not None and field.categories):
                merged[name] = field
    return merged


def _kinds_of_leaf(step: Any, names: Sequence[str]) -> dict[str, Field | None]:
    categories = getattr(step, "categories_", None)
    if isinstance(categories, list) and len(categories) == len(names):
        is_closed = getattr(step, "handle_unknown", "error") == "error" and not hasattr(step, "target_type_")
        return {
            name: of_categories(name, values, _MOST_CATEGORIES if is_closed else 0)
            for name, values in zip(names, categories)
        }
    if callable(getattr(step, "build_analyzer", None)):
        return {name: number(name, DType.STRING) for name in names}
    statistics = getattr(step, "statistics_", None)
    if statistics is not None and len(statistics) == len(names):
        return {name: _of_value(name, value) for name, value in zip(names, statistics)}
    if (trees := _boosted(step, names)) is not None:
        return trees
    library = type(step).__module__.partition(".")[0]
    if library in ("xgboost", "lightgbm"):
        fields = importlib.import_module(f"clipper.model.frameworks.{library}").fields_of(step)
        return dict(zip(names, fields)) if fields else {name: number(name) for name in names}
    if library == "sklearn" and type(step).__name__ not in _TAKE_ANYTHING:
        return {name: number(name) for name in names}
    return dict.fromkeys(names)


def _boosted(step: Any, names: Sequence[str]) -> dict[str, Field | None] | None:
    """Return the columns of scikit-learn's histogram gradient boosting with categories; None for other estimators."""
    is_categorical, encoder = getattr(step, "is_categorical_", None), getattr(step, "_preprocessor", None)
    if is_categorical is None or encoder is None:
        return None
    categories = iter(encoder.named_transformers_["encoder"].categories_)
    return {
        name: of_categories(name, next(categories), _MOST_CATEGORIES) if is_one else number(name)
        for name, is_one in zip(names, is_categorical)
    }


def _of_value(name: str, value: Any) -> Field | None:
    if isinstance(value, str):
        return number(name, DType.STRING)
    return number(name) if isinstance(value, (int, float, np.number)) and not isinstance(value, bool) else None


def _made(field: Field, is_absent: bool = False) -> Values:
    if is_absent:
        return column_of(replace(field, is_nullable=True, default=None), [None])
    if field.categories:
        value: Any = field.categories[0]
    else:
        value = _TEXT if field.type.dtype is DType.STRING else 1
    if field.default is not None:
        value = json.loads(field.default)
    return column_of(field, [value])


def _answers(record: RecordType, absent: Collection[str], answer: Try) -> bool:
    columns = {field.name: _made(field, field.name in absent) for field in record.fields}
    of_type = RecordType(
        tuple(replace(field, is_nullable=True) if field.name in absent else field for field in record.fields)
    )
    try:
        answer(of_type, columns)
    except Exception:  # noqa: BLE001  whatever it is, the row is not one that the estimator takes
        return False
    return True


def _tried(taken: Sequence[str], known: dict[str, Field], unknown: Sequence[str], answer: Try) -> dict[str, Field]:
    """Return the only types of unknown columns with which the estimator answers; or none."""
    choices: Iterable[tuple[DType, ...]] = itertools.product((DType.FLOAT64, DType.STRING), repeat=len(unknown))
    if len(unknown) > _MOST_TRIED:
        choices = ((dtype,) * len(unknown) for dtype in (DType.FLOAT64, DType.STRING))
    found = []
    for dtypes in choices:
        fields = known | {name: number(name, dtype) for name, dtype in zip(unknown, dtypes)}
        if _answers(RecordType(tuple(fields[name] for name in taken)), (), answer):
            found.append(fields)
    if not found:
        return {}
    # A column for which both types work stays unknown.
    return {name: found[0][name] for name in unknown if len({fields[name] for fields in found}) == 1}


def _with_missing(record: RecordType, lacking: set[str], open_names: Sequence[str], answer: Try) -> RecordType:
    """Return the record, with those columns nullable that are known to lack values, or need not have them.

    The latter are looked for among ``open_names``: the estimator answers a row without the value.
    """
    nullable = lacking & set(record.names)
    found = [name for name in open_names if name not in nullable]
    if found and not _answers(record, (), answer):
        found = []
    # All columns are tried together; if they are refused, texts and numbers apart, and then halves of these.
    texts = {field.name for field in record.fields if field.type.dtype is DType.STRING}
    groups = [found]
    for _ in range(max(_LEAST_CALLS, min(_MOST_CALLS, _MOST_VALUES // len(record.fields)))):
        if not groups or not (group := groups.pop(0)):
            break
        if _answers(record, nullable | set(group), answer):
            nullable |= set(group)
        elif len(group) > 1:
            middle = len(group) // 2
            parts = [group[:middle], group[middle:]]
            if group is found and 0 < len(texts & set(group)) < len(group):
                parts = [[name for name in group if name in texts], [name for name in group if name not in texts]]
            groups += parts
    return RecordType(
        tuple(replace(field, is_nullable=True) if field.name in nullable else field for field in record.fields)
    )
