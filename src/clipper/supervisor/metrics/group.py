"""What a metric is, and a group of metrics of one kind of thing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from clipper.control.statistics import LATENCY_BOUNDS_S, HistogramData

Kind = Literal["counter", "gauge"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Number(Generic[T]):
    """A counter or gauge: one number, or one for each value of the label ``extra``."""

    kind: Kind
    name: str
    help: str
    read: Callable[[T], float | Mapping[str, float]]
    extra: str | None = None


@dataclass(frozen=True, slots=True)
class Histogram(Generic[T]):
    name: str
    help: str
    read: Callable[[T], HistogramData]
    bounds: tuple[float, ...] = LATENCY_BOUNDS_S


Metric = Number[T] | Histogram[T]


@dataclass(frozen=True, slots=True)
class Group(Generic[T]):
    """The metrics of one kind of thing, and the labels that identify such a thing.

    ``is_summed``: each worker has such things of its own. They are summed over the workers, or, where each worker's are
    asked for, have ``worker`` as a further label.
    """

    labels: tuple[str, ...]
    metrics: tuple[Metric[T], ...]
    is_summed: bool = False
