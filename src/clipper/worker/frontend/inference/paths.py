"""Parses paths of the protocol, and those of MLflow's scoring server."""

from typing import NamedTuple

# Paths of a model, by their last part.
_OF_MODEL = {
    "": "model",
    "ready": "model_ready",
    "config": "config",
    "stats": "statistics",
    "infer": "infer",
    "predict": "predict",
    "observe": "observe",
    "score": "score",
    "generate": "parts",
    "generate_stream": "parts",
    "infer_stream": "parts",
}
_OF_SERVER = {
    "": "server",
    "health/live": "live",
    "health/ready": "ready",
    "models/stats": "statistics",
    "repository/index": "index",
    "trace/setting": "trace",
    "logging": "logging",
}
# Paths below an application's name, as MLflow's clients ask them.
_OF_MLFLOW = {"invocations": "invocations", "ping": "model_ready"}
_SHARED_MEMORY = ("systemsharedmemory", "cudasharedmemory")


class Target(NamedTuple):
    """The target of a path: a name of the tables above, ``load`` or ``shared_memory``.

    ``model`` is an application's name; ``version`` is one of the application's model.
    """

    kind: str
    model: str | None = None
    version: str | None = None


def read_path(path: bytes) -> Target | None:
    """Parse a path, with or without a trailing slash. Return None if the protocol has no such path."""
    text = path.decode("latin-1").strip("/")
    first, _, rest = text.partition("/")
    if first != "v2":
        kind = _OF_MLFLOW.get(rest)
        return None if kind is None else Target(kind, first)
    if (kind := _OF_SERVER.get(rest)) is not None:
        return Target(kind)
    parts = rest.split("/")
    match parts:
        case ["models", model, "versions", version, *action] if len(action) <= 1:
            kind = _OF_MODEL.get("".join(action))
            return None if kind is None else Target(kind, model, version)
        case ["models", model, *action] if len(action) <= 1:
            kind = _OF_MODEL.get("".join(action))
            return None if kind is None else Target(kind, model)
        case ["repository", "models", model, "load" | "unload"]:
            return Target("load", model)
        case ["models", model, "trace", "setting"]:
            return Target("trace", model)
        case [first, *_] if first in _SHARED_MEMORY:
            return Target("shared_memory")
    return None
