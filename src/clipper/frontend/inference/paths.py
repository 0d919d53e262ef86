"""What a path of the protocol asks for."""

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
    "observe",
    "index",
    "load",
    "shared_memory",
    "trace",
    "logging",
]

# Those of a model, by the last part of their path.
_OF_MODEL: dict[str, Kind] = {
    "": "model",
    "ready": "model_ready",
    "config": "config",
    "stats": "statistics",
    "infer": "infer",
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
    """``model`` is an application's name, if it is about one; ``version`` that of the model it asks."""

    kind: Kind
    model: str | None = None
    version: str | None = None


def read_path(path: bytes) -> Asked | None:
    """None if the protocol has no such path, with or without a slash at its end."""
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
