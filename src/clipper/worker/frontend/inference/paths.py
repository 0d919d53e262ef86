"""Paths of the protocol."""

from typing import Literal, NamedTuple

Kind = Literal[
    "server",
    "live",
    "ready",
    "model",
    "model_ready",
    "config",
    "statistics",
    "infer",
    "predict",
    "observe",
    "index",
    "load",
    "shared_memory",
    "trace",
    "logging",
]

# Paths of a model, by their last part.
_OF_MODEL: dict[str, Kind] = {
    "": "model",
    "ready": "model_ready",
    "config": "config",
    "stats": "statistics",
    "infer": "infer",
    "predict": "predict",
    "observe": "observe",
}
_OF_SERVER: dict[str, Kind] = {
    "": "server",
    "health/live": "live",
    "health/ready": "ready",
    "models/stats": "statistics",
    "repository/index": "index",
    "trace/setting": "trace",
    "logging": "logging",
}
_SHARED_MEMORY = ("systemsharedmemory", "cudasharedmemory")


class Asked(NamedTuple):
    """What a path asks for. ``model`` is an application's name; ``version`` is one of the application's model."""

    kind: Kind
    model: str | None = None
    version: str | None = None


def read_path(path: bytes) -> Asked | None:
    """Parse a path, with or without a trailing slash. Return None if the protocol has no such path."""
    text = path.decode("latin-1").strip("/")
    first, _, rest = text.partition("/")
    if first != "v2":
        return None
    if (kind := _OF_SERVER.get(rest)) is not None:
        return Asked(kind)
    parts = rest.split("/")
    match parts:
        case ["models", model, "versions", version, *action] if len(action) <= 1:
            kind = _OF_MODEL.get("".join(action))
            return None if kind is None else Asked(kind, model, version)
        case ["models", model, *action] if len(action) <= 1:
            kind = _OF_MODEL.get("".join(action))
            return None if kind is None else Asked(kind, model)
        case ["repository", "models", model, "load" | "unload"]:
            return Asked("load", model)
        case ["models", model, "trace", "setting"]:
            return Asked("trace", model)
        case [first, *_] if first in _SHARED_MEMORY:
            return Asked("shared_memory")
    return None
