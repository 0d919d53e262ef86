"""Pickles Python objects, with the code that the container lacks."""

import sys
from pathlib import Path
from types import ModuleType

import cloudpickle

from clipper.client.packaging.artifact import Member
from clipper.errors import InvalidArgument

OBJECT_NAME = "model.pkl"
# The methods of a model that is not a function itself.
_CALLED = ("predict_batch", "predict")

_CLOUDPICKLE = tuple(Path(cloudpickle.__file__).parent.glob("*.py"))


def object_members(model: object) -> tuple[Member, ...]:
    """Return a pickled model, and the code to read it without our packages. Raises InvalidArgument if it is none."""
    if isinstance(model, type):
        raise InvalidArgument(
            f"model is the class {model.__name__}: deploy an instance of it, or module:{model.__name__} "
            "to let the container make it"
        )
    # A dict from labels to hidden Markov models is a model too. The container checks that they are such models.
    parts = list(model.values()) if isinstance(model, dict) and model else [model]
    if not all(callable(part) or any(callable(getattr(part, name, None)) for name in _CALLED) for part in parts):
        raise InvalidArgument(
            f"model is of type {type(model).__name__}: expected a model file's path, module:attribute, an object with "
            "predict_batch or predict, or a function over a batch"
        )
    data = pickled(model)
    # cloudpickle's own functions rebuild code that was pickled by value.
    reader = _CLOUDPICKLE if b"cloudpickle" in data else ()
    return (Member(OBJECT_NAME, data), *(Member(f"code/cloudpickle/{path.name}", path) for path in reader))


def pickled(model: object) -> bytes:
    """Pickle a model, by value if its code is in the user's own files.

    A function from ``__main__`` or a notebook is always pickled by value. A function from another module of the user
    would be pickled as that module's name, which the container cannot import. So its module is pickled along with it.
    Raises InvalidArgument if it holds something that cannot be pickled, such as a lock or an open file.
    """
    module = _own_module(model)
    try:
        if module is None:
            return bytes(cloudpickle.dumps(model))
        return _with_module(model, module)
    # Pickling runs ``__reduce__`` of every contained object, which may raise any exception.
    except Exception as error:
        raise InvalidArgument(
            f"cannot pickle this {type(model).__name__}: {error}. "
            "Deploy it as module:attribute, which ships the code and builds the model in the container"
        ) from error


def _with_module(model: object, module: ModuleType) -> bytes:
    if module.__name__ in cloudpickle.list_registry_pickle_by_value():
        return bytes(cloudpickle.dumps(model))
    cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(model))
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _own_module(model: object) -> ModuleType | None:
    """Return the module that defines the model or its class, unless it belongs to an installed package."""
    name = getattr(model, "__module__", None) or type(model).__module__
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is None or file is None or name == "__main__":
        return None
    path = Path(file).resolve()
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    is_standard = path.is_relative_to(Path(sys.base_prefix, "lib").resolve())
    return None if installed or is_standard else module
