"""A pipeline of scikit-learn whose ColumnTransformer takes the columns of a batch, with the same answers to the bit.

scikit-learn's own takes a DataFrame, selects from it for each transformer, and checks each selection: 6 ms for a batch
of 30 columns, however few its rows are. Like ``scikit_learn.py``, this module does not import scikit-learn.
"""

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipper.model.frameworks.estimator_columns import chosen_names
from clipper.model.frameworks.table import column_of, with_nan
from clipper.model.model import Array, Columns
from clipper.values.records import RecordType
from clipper.values.types import DType

_TRIED_ROWS = (32, 1)
_MISSING = object()
_UNKNOWN = "a text that no encoder knows"


class _Unsupported(Exception):
    """A transformer has no quick form."""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Columns of numbers. ``steps``: change a matrix of them, mostly in place."""

    names: Sequence[str]
    steps: Sequence[Callable[[Array], Array]]
    start: int

    def entries(self, columns: Columns, rows: int) -> tuple[Array, Array]:
        matrix = np.empty((rows, len(self.names)))
        for place, name in enumerate(self.names):
            values = columns[name]
            matrix[:, place] = values if isinstance(values, np.ndarray) else with_nan(values)
        for step in self.steps:
            matrix = step(matrix)
        return np.broadcast_to(np.arange(self.start, self.start + len(self.names)), matrix.shape), matrix


@dataclass(frozen=True, slots=True)
class _Codes:
    """Columns of categories.

    Attributes:
        tables: for each column, the code of each value, and of ``_MISSING``.
        unknown: the code of any other value; None if such a value is an error.
        starts: the place of the first category of each column if each category has a place, which has 1 where a row
            has the category, and no other; else the place of each column, which has the code.
    """

    names: Sequence[str]
    tables: Sequence[Mapping[Any, float]]
    unknown: float | None
    starts: Array
    is_one_hot: bool

    def entries(self, columns: Columns, rows: int) -> tuple[Array, Array]:
        codes = np.empty((rows, len(self.names)))
        for place, (name, table) in enumerate(zip(self.names, self.tables)):
            column = columns[name]
            plain = column.tolist() if isinstance(column, np.ndarray) else column
            values = [_MISSING if value is None or value != value else value for value in plain]
            if self.unknown is None:
                codes[:, place] = [table[value] for value in values]
            else:
                codes[:, place] = [table.get(value, self.unknown) for value in values]
        if not self.is_one_hot:
            return np.broadcast_to(self.starts, codes.shape), codes
        # A category that is not known has a zero in the first place.
        return self.starts + np.maximum(codes, 0).astype(self.starts.dtype), (codes >= 0).astype(float)


class _QuickColumns:
    """The parts of a ColumnTransformer that a pipeline needs."""

    def __init__(self, blocks: Sequence[_Numbers | _Codes], width: int, is_sparse: bool) -> None:
        self._blocks = blocks
        self._width = width
        self._is_sparse = is_sparse

    def transform(self, columns: Columns) -> Any:
        rows = len(next(iter(columns.values())))
        found = [block.entries(columns, rows) for block in self._blocks]
        places = np.concatenate([each for each, _ in found], axis=1)
        values = np.concatenate([each for _, each in found], axis=1)
        if self._is_sparse:
            starts = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
            parts = (values.ravel(), places.ravel().astype(np.int32), starts)
            return sys.modules["scipy.sparse"].csr_matrix(parts, shape=(rows, self._width))
        matrix = np.zeros((rows, self._width))
        matrix[np.arange(rows)[:, None], places] = values
        return matrix


def quick_pipeline(estimator: Any, record: RecordType) -> Any | None:
    """Return a pipeline that takes the columns of a batch of records, and not a DataFrame; None if there is none.

    ``agrees`` tells whether its answers are right. It may raise any error, also where the estimator answers.
    """
    while (best := getattr(estimator, "best_estimator_", None)) is not None:
        estimator = best
    steps = getattr(estimator, "steps", None)
    if not _is_own(estimator, "Pipeline") or not isinstance(steps, list) or len(steps) < 2:
        return None
    try:
        first = _quick_columns(steps[0][1], record)
    except (_Unsupported, AttributeError, KeyError, TypeError, ValueError):  # another version has other attributes
        return None
    quick = copy.copy(estimator)
    quick.steps = [(steps[0][0], first), *steps[1:]]
    return quick


def agrees(quick: Callable[[Any], object], slow: Callable[[Any], object], pipeline: Any, record: RecordType) -> bool:
    """Whether a quick pipeline answers some made rows as its estimator does: a later scikit-learn may work differently.
    ``quick`` and ``slow``: answer a batch of columns, with the pipeline and with the estimator.
    """
    chance = np.random.default_rng(0)
    known: dict[str, list[Any]] = {}
    for block in pipeline.steps[0][1]._blocks:
        if isinstance(block, _Codes):
            others = [] if block.unknown is None else [_UNKNOWN]
            known |= {name: [*table, *others] for name, table in zip(block.names, block.tables)}
    try:
        for rows in _TRIED_ROWS:
            columns = {field.name: column_of(field, _made(field, known, rows, chance)) for field in record.fields}
            if not _are_equal(quick(columns), slow(columns)):
                return False
    except Exception:  # noqa: BLE001  whatever it is, it is not certain that the answers agree
        return False
    return True


def _made(field: Any, known: Mapping[str, list[Any]], rows: int, chance: np.random.Generator) -> list[Any]:
    """Return values of a field: some of those that an encoder knows, or numbers; and missing values if it may."""
    listed = field.categories or [value for value in known.get(field.name, ()) if value is not _MISSING]
    if field.type.dtype is not DType.STRING:
        listed = [value for value in listed if not isinstance(value, str)]
    found = [listed[chance.integers(len(listed))] for _ in range(rows)] if listed else _numbers(field, rows, chance)
    return [None if field.is_nullable and chance.random() < 0.2 else value for value in found]


def _numbers(field: Any, rows: int, chance: np.random.Generator) -> list[Any]:
    if field.type.dtype is DType.STRING:
        return [_UNKNOWN] * rows
    numbers = chance.standard_normal(rows) * 10
    if field.type.dtype not in (DType.FLOAT32, DType.FLOAT64):
        numbers = (numbers > 0).astype(int)
    return list(numbers.tolist())


def _are_equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(_are_equal(one[k], other[k]) for k in one)
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))


def _quick_columns(transformer: Any, record: RecordType) -> _QuickColumns:
    if not _is_own(transformer, "ColumnTransformer") or transformer.transformer_weights:
        raise _Unsupported
    names = [str(name) for name in transformer.feature_names_in_]
    blocks: list[_Numbers | _Codes] = []
    width = 0
    for name, part, columns in transformer.transformers_:
        chosen = chosen_names(columns, names)
        if (isinstance(part, str) and part == "drop") or not chosen:
            continue
        start, stop = transformer.output_indices_[name].start, transformer.output_indices_[name].stop
        if isinstance(columns, str) or start != width or not set(chosen) <= set(record.names):
            raise _Unsupported
        blocks.append(_block(_flat(part), chosen, start, stop))
        width = stop
    if not blocks:
        raise _Unsupported
    return _QuickColumns(blocks, width, bool(transformer.sparse_output_))


def _flat(part: Any) -> list[Any]:
    """Return the transformers of a part, one after another."""
    if part is None or (isinstance(part, str) and part == "passthrough"):
        return []
    if _is_own(part, "Pipeline"):
        return [each for _, step in part.steps for each in _flat(step)]
    is_identity = _is_own(part, "FunctionTransformer") and part.func is None and not part.validate
    return [] if is_identity else [part]


def _block(steps: Sequence[Any], names: Sequence[str], start: int, stop: int) -> _Numbers | _Codes:
    if steps and (_is_own(steps[-1], "OneHotEncoder") or _is_own(steps[-1], "OrdinalEncoder")):
        return _codes(steps, names, start, stop)
    if stop - start != len(names):
        raise _Unsupported
    return _Numbers(names, [_number_step(step, len(names)) for step in steps], start)


def _codes(steps: Sequence[Any], names: Sequence[str], start: int, stop: int) -> _Codes:
    *imputers, encoder = steps
    is_one_hot = _is_own(encoder, "OneHotEncoder")
    if len(imputers) > 1 or encoder._infrequent_enabled or np.dtype(encoder.dtype) != np.float64:
        raise _Unsupported
    if is_one_hot and encoder.drop_idx_ is not None:
        raise _Unsupported
    tables: list[dict[Any, float]] = []
    for place, categories in enumerate(encoder.categories_):
        table: dict[Any, float] = {}
        for code, value in enumerate(categories.tolist()):
            is_missing = value is None or value != value
            table[_MISSING if is_missing else value] = (
                float(encoder.encoded_missing_value) if is_missing and not is_one_hot else float(code)
            )
        if imputers:
            fill = _filled(imputers[0], len(names)).tolist()[place]
            if fill is None or fill != fill:
                raise _Unsupported
            table.pop(_MISSING, None)
            if fill in table:
                table[_MISSING] = table[fill]
        tables.append(table)
    value = getattr(encoder, "unknown_value", None)  # an OrdinalEncoder's
    code_of_unknown = None if value is None else float(value)
    unknown = {"error": None, "ignore": -1.0, "use_encoded_value": code_of_unknown}[encoder.handle_unknown]
    starts = np.arange(start, stop) if not is_one_hot else start + np.cumsum([0, *map(len, encoder.categories_[:-1])])
    if len(starts) != len(names) or (is_one_hot and sum(map(len, encoder.categories_)) != stop - start):
        raise _Unsupported
    return _Codes(names, tables, unknown, starts, is_one_hot)


def _number_step(step: Any, width: int) -> Callable[[Array], Array]:
    if _is_own(step, "SimpleImputer"):
        filled = _filled(step, width).astype(float)
        if np.isnan(filled).any():
            raise _Unsupported
        return lambda matrix: np.where(np.isnan(matrix), filled, matrix)
    if _is_own(step, "StandardScaler"):
        return _scaling(step.mean_ if step.with_mean else None, step.scale_ if step.with_std else None)
    if _is_own(step, "RobustScaler") and not step.unit_variance:
        return _scaling(step.center_ if step.with_centering else None, step.scale_ if step.with_scaling else None)
    raise _Unsupported


def _scaling(center: Array | None, scale: Array | None) -> Callable[[Array], Array]:
    def change(matrix: Array) -> Array:
        if center is not None:
            matrix -= center
        if scale is not None:
            matrix /= scale
        return matrix

    return change


def _filled(imputer: Any, width: int) -> Array:
    """Return the values that an imputer has for missing ones, which have to be NaN."""
    is_nan = isinstance(imputer.missing_values, float) and imputer.missing_values != imputer.missing_values
    if not _is_own(imputer, "SimpleImputer") or not is_nan or imputer.add_indicator:
        raise _Unsupported
    statistics = np.asarray(imputer.statistics_)
    if statistics.shape != (width,):
        raise _Unsupported
    return statistics


def _is_own(step: Any, name: str) -> bool:
    """Whether an object is of scikit-learn's own class, and not of one that derives from it."""
    kind = type(step)
    return kind.__name__ == name and kind.__module__.startswith("sklearn.")
