"""Types that every layer shares: names of models, and types of inputs.

Standard library only: the container runtime imports this file inside a model's own environment.
"""

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from clipper.errors import Conflict, InvalidArgument

# Names go into file names, URLs and metric labels, so they may have only characters that all three take.
NAME = r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(NAME)

# A dtype, and perhaps its sizes. A size has at most ten digits: no row is larger than a frame of the protocol.
_SIZE = r"\s*(?:[0-9]{1,10}|\*)\s*"
_INPUT_TYPE = re.compile(rf"([A-Za-z0-9]+)(?:\s*\[(\s*|{_SIZE}(?:,{_SIZE})*)\])?")

Shape = tuple[int | None, ...]

# The environment variable of the selection store's address, which may hold a password: everybody on the machine can
# read command lines.
STORE_VARIABLE = "CLIPPER_STORE"
# The same for the registry that several supervisors share.
REGISTRY_VARIABLE = "CLIPPER_REGISTRY"
# The environment variable in which a command passes ``StartOptions`` to the server.
START_VARIABLE = "CLIPPER_START"
# The option of the server's process for the reading end of a pipe: the server stops once the other end is closed.
STOPS_WITH = "--stops-with"
# The prefix of OpenTelemetry's variables. Some of them hold the key of a receiver.
OTEL_PREFIX = "OTEL_"

# The framework of a model file or folder, which decides how the container loads it. A pickle may hold an estimator of
# any library; torch_state is a state dict, which also needs the module's class.
Framework = Literal[
    "pickle",
    "joblib",
    "onnx",
    "xgboost",
    "lightgbm",
    "torchscript",
    "torch_export",
    "torch_state",
    "tensorflow",
    "keras",
    "spark",
    "caffe",
    "mlflow",
]

# How a model is loaded from its artifact: from a file, as ``module:attribute``, or as a program; an image has none.
Loader = Literal["file", "import", "binary", "image"]

# The role of a token of the management API: ``read`` may read everything but tokens, ``admin`` may do everything.
Role = Literal["admin", "read"]


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller that makes a change.

    Attributes:
        name: the name of a token; ``OPERATOR`` for the server's own token, and ``CLIPPER`` for the server itself.
        address: the network address of the caller; None if the call came from this process.
    """

    name: str
    address: str | None = None


CLIPPER = Caller("clipper")
OPERATOR = "operator"
# No token may have these names: events could not distinguish it from the server or its operator.
RESERVED_CALLERS = frozenset({CLIPPER.name, OPERATOR})

# Longer than any user's or session's id. Answers repeat the context unchanged.
MAX_CONTEXT_LENGTH = 1000

# The most features of a query. A linear policy keeps half of a matrix with so many columns for each model: 17 KB.
MAX_FEATURES = 64

# Bound of a message to a fork server; the arguments and variables of a container take some hundred bytes.
MAX_FORK_MESSAGE_BYTES = 64 * 1024
# A variable whose value makes room for the variables of forked containers.
ROOM_VARIABLE = "CLIPPER_ROOM"

# A container's name for its device, if its model does not compute on the GPU that is reserved for it.
CPU = "CPU"

# Bytes that a replica may allocate for each byte that it may use: a thread uses a hundredth of its stack of 8 MiB.
DATA_PER_MEMORY = 2


class DType(enum.IntEnum):
    """The type of an input's elements; the value is its code in the container protocol."""

    INT32 = 1
    INT64 = 2
    FLOAT32 = 3
    FLOAT64 = 4
    UINT8 = 5
    BOOL = 6
    STRING = 7
    BYTES = 8

    @property
    def label(self) -> str:
        """The name on the wire, in the CLI and in the registry, e.g. ``float64``."""
        return self.name.lower()

    @property
    def size_bytes(self) -> int:
        """The size of one element; 1 for strings and bytes, whose elements are bytes."""
        return _SIZES_BYTES[self]

    @property
    def is_numeric(self) -> bool:
        return self < DType.STRING

    @property
    def numpy_code(self) -> str:
        """The code of ``numpy.dtype`` for the elements of a row; strings and bytes have none."""
        return _NUMPY_CODES[self]

    @staticmethod
    def parse(text: str) -> "DType":
        """Read a dtype's name, also an old one (``ints floats doubles strings bytes``). Raises InvalidArgument."""
        name = text.strip().lower()
        try:
            return _ALIASES[name]
        except KeyError:
            known = ", ".join(dtype.label for dtype in DType)
            raise InvalidArgument(f"input type {text!r} is not known: expected one of {known}") from None


# As numpy and the container protocol have them in a row, little-endian.
_NUMPY_CODES = {
    DType.INT32: "<i4",
    DType.INT64: "<i8",
    DType.FLOAT32: "<f4",
    DType.FLOAT64: "<f8",
    DType.UINT8: "u1",
    DType.BOOL: "?",
}
_SIZES_BYTES = {dtype: int(_NUMPY_CODES.get(dtype, "?").strip("<ifu?") or 1) for dtype in DType}

_ALIASES = {dtype.label: dtype for dtype in DType} | {
    "int": DType.INT32,
    "ints": DType.INT32,
    "integers": DType.INT32,
    "float": DType.FLOAT32,
    "floats": DType.FLOAT32,
    "double": DType.FLOAT64,
    "doubles": DType.FLOAT64,
    "str": DType.STRING,
    "strings": DType.STRING,
}


@dataclass(frozen=True, slots=True)
class InputType:
    """The type of one input of a model or application. ``shape``: the length of each dimension, None for any length. A
    numeric model that declares nothing takes ``(None,)``, a flat list of any length. A scalar has the shape ``()``, and
    so have strings and bytes.
    """

    dtype: DType
    shape: Shape = (None,)

    def __post_init__(self) -> None:
        if not self.dtype.is_numeric and self.shape != ():
            object.__setattr__(self, "shape", ())
        if any(size is not None and size < 1 for size in self.shape):
            raise InvalidArgument(f"input shape {self.shape} has a dimension below 1")
        if len(self.shape) > MAX_DIMENSIONS:
            raise InvalidArgument(f"input shape {self.shape} has over {MAX_DIMENSIONS} dimensions")

    @property
    def row_bytes(self) -> int | None:
        """The size of a row; None if the shape does not determine it."""
        if not self.dtype.is_numeric:
            return None
        size = self.dtype.size_bytes
        for length in self.shape:
            if length is None:
                return None
            size *= length
        return size

    @property
    def elements(self) -> int:
        """The number of elements of each row; 0 if the shape does not determine it."""
        return (self.row_bytes or 0) // self.dtype.size_bytes

    @property
    def leading_dimensions(self) -> int:
        """The number of dimensions that precede a row's data: all if its size does not determine them, else 0."""
        return len(self.shape) if len(self.shape) > 1 and None in self.shape else 0

    def accepts(self, other: "InputType") -> bool:
        """Whether every input of type ``other`` also belongs to this type."""
        return self.dtype == other.dtype and (
            len(self.shape) == len(other.shape)
            and all(mine is None or mine == theirs for mine, theirs in zip(self.shape, other.shape))
        )

    def suits(self, model: object) -> bool:
        """Whether every row of this type may be sent unchanged to a model of type ``model``, a ``ValueType``.

        The model has to accept the input, and both types must have the same layout: a row of ``float32[3,8,8]`` has no
        dimensions before its data, but a model of ``float32[3,*,*]`` expects them.
        """
        return (
            isinstance(model, InputType) and model.accepts(self) and model.leading_dimensions == self.leading_dimensions
        )

    def narrowed(self, other: object) -> "InputType | None":
        """Return the type of the inputs that belong to both types; None if there are none."""
        if not isinstance(other, InputType) or self.dtype != other.dtype or len(self.shape) != len(other.shape):
            return None
        shape = tuple(theirs if mine is None else mine for mine, theirs in zip(self.shape, other.shape))
        both = InputType(self.dtype, shape)
        return both if other.accepts(both) else None

    def __str__(self) -> str:
        """Write the type as text: ``float64[784]``, ``float32[3,*,*]``, ``string``."""
        if not self.dtype.is_numeric:
            return self.dtype.label
        sizes = ",".join("*" if size is None else str(size) for size in self.shape)
        return f"{self.dtype.label}[{sizes}]"

    @staticmethod
    def parse(text: str) -> "InputType":
        """Read the text of ``str()``; a bare dtype means a list of any length. Raises InvalidArgument."""
        match = _INPUT_TYPE.fullmatch(text.strip())
        if match is None:
            raise InvalidArgument(f"input type {text[:100]!r} is malformed: expected e.g. float64[784]")
        dtype = DType.parse(match[1])
        if match[2] is None:
            return InputType(dtype)
        sizes = [size.strip() for size in match[2].split(",")] if match[2].strip() else []
        return InputType(dtype, tuple(None if size == "*" else int(size) for size in sizes))


# Enough for a batch of video. The bound keeps a hostile declaration from costing time for each query.
MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class ModelId:
    """A model's version: the unit that has replicas, a queue and cache entries."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def log_fields(self) -> dict[str, str]:
        """The fields that identify the version in records of a log."""
        return {"model": self.name, "version": self.version}


def check_name(kind: str, name: str, others: Iterable[str] = ()) -> str:
    """Return ``name`` if it may name an application, a model or a version beside ``others`` of its kind. Raises
    InvalidArgument if it is not a name; the message says what is; Conflict if it differs from another name only in
    case. Some file systems take both for one, and so do people.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"{kind} {name!r:.100} is not a valid name: use 1 to 63 of A-Z, a-z, 0-9, '-', '_' and '.', "
            "beginning and ending with a letter or digit"
        )
    other = in_other_case(name, others)
    if other is not None:
        raise Conflict(f"{kind} {name!r} differs from {other!r} only in case: use that name, or another one")
    return name


def in_other_case(name: str, others: Iterable[str]) -> str | None:
    """Return the one of these names that differs from ``name`` only in case; None if none does."""
    lower = name.lower()
    return next((other for other in others if other.lower() == lower and other != name), None)
