"""A decoded predict call. It is not compiled, which would lose the annotations by which msgspec decodes."""

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct


class PredictBody(Struct, frozen=True):
    """A predict call. ``uid`` is the old system's name for ``context``. Unknown keys are ignored, as there."""

    input: Raw | msgspec.UnsetType = msgspec.UNSET
    input_batch: list[Raw] | msgspec.UnsetType = msgspec.UNSET
    input_columns: Raw | msgspec.UnsetType = msgspec.UNSET
    context: str | int | None = None
    uid: str | int | None = None
    version: str | int | None = None
    timeout_ms: float | None = None
    features: Raw | msgspec.UnsetType = msgspec.UNSET


class PlainBody(Struct, forbid_unknown_fields=True, gc=False):
    input: tuple[float, ...]


class Request(Struct, frozen=True):
    """A predict call after reading.

    Attributes:
        features: the raw buffer of each input's features; None if the application takes none.
        is_batch: whether the answer has the form for batches.
        timeout_s: the client's timeout; None if there is only the application's SLO.
    """

    rows: list[bytes]
    features: Sequence[bytes | None]
    is_batch: bool = False
    context: str | None = None
    version: str | None = None
    timeout_s: float | None = None
