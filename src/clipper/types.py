"""The words that every layer shares: what a model is called and what it takes.

Standard library only: the container runtime imports this file inside a model's own environment.
"""

import enum
import re
from dataclasses import dataclass
from typing import Literal

from clipper.errors import InvalidArgument

# Names go into file names, URLs and metric labels, so they are restricted to what all three take.
_NAME = re.compile(r"[a-z0-9]([-._a-z0-9]{0,61}[a-z0-9])?")

# A dtype, and perhaps its sizes. A size has at most ten digits: no row is larger than a frame of the protocol.
_SIZE = r"\s*(?:[0-9]{1,10}|\*)\s*"
_INPUT_TYPE = re.compile(rf"([A-Za-z0-9]+)(?:\s*\[(\s*|{_SIZE}(?:,{_SIZE})*)\])?")

Shape = tuple[int | None, ...]

# Where the selection store's address is in a process's environment: it may hold a password, and command lines can be
# read by everybody on the machine.
STORE_VARIABLE = "CLIPPER_STORE"
# As above, of the registry that several supervisors share.
REGISTRY_VARIABLE = "CLIPPER_REGISTRY"
# The variable by which a command tells the server where its options come from, as ``StartOptions``.
START_VARIABLE = "CLIPPER_START"
# The option of the server's process that names the reading end of a pipe: it stops once the other end is closed.
STOPS_WITH = "--stops-with"
# What OpenTelemetry's variables begin with. Some hold the key of a receiver.
OTEL_PREFIX = "OTEL_"

# What a model file or folder is of, by the name of what loads it in the container. A pickle may hold an estimator of
# any library; torch_state is a state dict, which needs the module's class besides.
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

# How a model comes out of its artifact: an object in a file, ``module:attribute``, a program, or none of it: an image.
Loader = Literal["file", "import", "binary", "image"]

# What a token of the management API is for: ``read`` may look at everything but tokens, ``admin`` may do all.
Role = Literal["admin", "read"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a change.

    Attributes:
        name: the name of a token; ``OPERATOR`` for the server's own token, and ``CLIPPER`` for the server itself.
        address: where the call came from; None if it came from no network.
    """

    name: str
    address: str | None = None


CLIPPER = Caller("clipper")
OPERATOR = "operator"
# No token may have these names, since events would not tell it from what they stand for.
RESERVED_CALLERS = frozenset({CLIPPER.name, OPERATOR})

# Longer than any user's or session's id; it goes into an answer as it came.
MAX_CONTEXT_LENGTH = 1000

# Numbers that a query may bring for its policy. A linear policy keeps the half of a matrix of so many columns for each
# model: 17 KB.
MAX_FEATURES = 64

# What is said between the supervisor and a fork server; arguments and variables of a container are some hundred bytes.
MAX_FORK_MESSAGE_BYTES = 64 * 1024
# The variable that makes room for those of forked containers.
ROOM_VARIABLE = "CLIPPER_ROOM"

# Where memory runs out, the kernel should take a model before the server that would start it again.
OOM_SCORE_ADJUSTMENT = 500

# What a replica may allocate for each byte that it may use: threads' stacks, of 8 MiB each, are used to a hundredth.
DATA_PER_MEMORY = 2


class DType(enum.IntEnum):
    """What one element of an input is; the value is its code in the container protocol."""

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

    @staticmethod
    def parse(text: str) -> "DType":
        """Read a dtype's name or one of the old system's (``ints floats doubles strings bytes``).

        Raises:
            InvalidArgument: the name is not known.
        """
        name = text.strip().lower()
        try:
            return _ALIASES[name]
        except KeyError:
            known = ", ".join(dtype.label for dtype in DType)
            raise InvalidArgument(f"input type {text!r} is not known: expected one of {known}") from None


_SIZES_BYTES = {
    DType.INT32: 4,
    DType.INT64: 8,
    DType.FLOAT32: 4,
    DType.FLOAT64: 8,
    DType.UINT8: 1,
    DType.BOOL: 1,
    DType.STRING: 1,
    DType.BYTES: 1,
}

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
    """What one input of a model or application is.

    Attributes:
        dtype: the element type.
        shape: one entry a dimension, None where any length will do. ``(None,)``, a flat list of
            any length, is what a numeric model that declares nothing takes. A scalar is ``()``.
            Strings and bytes have no dimensions: always ``()``.
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
        """The size of one row where the shape fixes it, else None."""
        if not self.dtype.is_numeric:
            return None
        size = self.dtype.size_bytes
        for length in self.shape:
            if length is None:
                return None
            size *= length
        return size

    @property
    def leading_dimensions(self) -> int:
        """How many dimensions a row carries before its data: all, if the row's size does not determine them, else 0."""
        return len(self.shape) if len(self.shape) > 1 and None in self.shape else 0

    def accepts(self, other: "InputType") -> bool:
        """Whether every input of type ``other`` is one of this type."""
        return self.dtype == other.dtype and (
            len(self.shape) == len(other.shape)
            and all(mine is None or mine == theirs for mine, theirs in zip(self.shape, other.shape))
        )

    def suits(self, model: "InputType") -> bool:
        """Whether every row of this type may be sent unchanged to a model of type ``model``.

        The model has to accept the input, and both types must have the same layout: a row of ``float32[3,8,8]`` has no
        dimensions before its data, but a model of ``float32[3,*,*]`` expects them.
        """
        return model.accepts(self) and model.leading_dimensions == self.leading_dimensions

    def narrowed(self, other: "InputType") -> "InputType | None":
        """The type of inputs that are of both types: each open length becomes the other's. None if there are none."""
        if self.dtype != other.dtype or len(self.shape) != len(other.shape):
            return None
        shape = tuple(theirs if mine is None else mine for mine, theirs in zip(self.shape, other.shape))
        both = InputType(self.dtype, shape)
        return both if other.accepts(both) else None

    def __str__(self) -> str:
        """``float64[784]``, ``float32[3,*,*]``, ``string``."""
        if not self.dtype.is_numeric:
            return self.dtype.label
        sizes = ",".join("*" if size is None else str(size) for size in self.shape)
        return f"{self.dtype.label}[{sizes}]"

    @staticmethod
    def parse(text: str) -> "InputType":
        """The inverse of ``str()``; a bare dtype such as ``doubles`` means a list of any length.

        Raises:
            InvalidArgument: the text is not of that form.
        """
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
        """What a record of a log says of it."""
        return {"model": self.name, "version": self.version}


def check_name(kind: str, name: str) -> str:
    """Return ``name`` if it may name an application, a model or a version.

    Raises:
        InvalidArgument: it may not; the message says what may.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"{kind} {name!r:.100} is not a valid name: use 1 to 63 of a-z, 0-9, '-', '_' and '.', "
            "beginning and ending with a letter or digit"
        )
    return name
