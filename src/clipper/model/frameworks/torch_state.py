"""PyTorch: a module's weights (``torch.save(module.state_dict(), …)``), with ``module:Class`` to load them into."""

import importlib
import pickle
from pathlib import Path
from typing import Any

import torch

from clipper.errors import ContainerFailed
from clipper.model.frameworks.framework import FrameworkModel, FrameworkSource
from clipper.model.frameworks.torch_network import network

_ADVICE = "save it with torch.save(module.state_dict(), path)"


def load(source: FrameworkSource) -> FrameworkModel:
    """Make the module, by calling the target without arguments, and load its weights. Raises ContainerFailed if the
    target does not make a module, or the file does not hold a state dict; RuntimeError if the weights do not fit the
    module; PyTorch says which differ.
    """
    module = _made(source.target)
    module.load_state_dict(_state(source.path))
    return network(module, source)


def _made(target: str | None) -> torch.nn.Module:
    name, _, attribute = (target or "").partition(":")
    if not name or not attribute:
        raise ContainerFailed(f"target {target!r} is malformed: expected the weights' class, as module:Class")
    made = getattr(importlib.import_module(name), attribute)()
    if not isinstance(made, torch.nn.Module):
        raise ContainerFailed(f"{target}() made a {type(made).__name__}: expected a torch.nn.Module")
    return made


def _state(path: Path) -> dict[str, Any]:
    try:
        # Load only tensors and plain values, because a pickle could run any code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ContainerFailed(f"{path.name} holds Python objects besides tensors: {_ADVICE}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        held = f"keys {', '.join(map(str, list(state)[:5]))}" if isinstance(state, dict) else type(state).__name__
        raise ContainerFailed(f"{path.name} is not a state dict: it holds {held}: {_ADVICE}")
    return state
