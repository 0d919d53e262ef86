"""What the three forms of a PyTorch network share once they are loaded."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from clipper.errors import ModelFailed
from clipper.runtime.frameworks.framework import FrameworkModel, FrameworkSource, thread_count
from clipper.runtime.frameworks.tensors import Answer, in_batches_of
from clipper.runtime.model import Array, Inputs
from clipper.types import DType, InputType

LIBRARY = f"torch {torch.__version__}"

# PyTorch takes the second before its first operation, once in a process.
torch.set_num_threads(thread_count())
torch.set_num_interop_threads(1)


def network(module: torch.nn.Module, source: FrameworkSource) -> FrameworkModel:
    """Return a module as a model. It tells nothing of its input: a list of float32 where nobody does."""
    input_type = None if source.input_type else InputType(DType.FLOAT32)
    return FrameworkModel(predictor(module.eval(), module.parameters(), source), input_type, LIBRARY)


def predictor(
    call: Callable[..., Any], parameters: Iterable[torch.Tensor], source: FrameworkSource, batch: int | None = None
) -> Callable[[Inputs], object]:
    """Return what answers a batch.

    Args:
        parameters: the network's; numbers with a fraction come to it in their type.
        batch: how many rows a call must have; None: any number will do.
    """
    answer = Answer.of(source)
    dtype = next((each.dtype for each in parameters if each.is_floating_point()), torch.float32)

    def predict_batch(inputs: Inputs) -> Any:
        with torch.inference_mode():
            outputs = _by_name(call(_given(inputs, dtype)))
        return answer.rows(outputs) if isinstance(outputs, dict) else outputs

    return in_batches_of(batch, predict_batch)


def _given(inputs: Inputs, dtype: torch.dtype) -> Any:
    # Texts go as they are to a module that takes them.
    if isinstance(inputs, list):
        return inputs
    tensor = torch.from_numpy(inputs)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _by_name(returned: Any) -> dict[str, Array] | list[Any]:
    """Return the outputs' arrays by name, or the list of one answer a row that a network may return as well."""
    if isinstance(returned, torch.Tensor):
        return {"output": _array(returned)}
    if isinstance(returned, Mapping):
        return {str(name): _array(value) for name, value in returned.items()}
    if hasattr(returned, "_asdict"):  # a named tuple
        return _by_name(returned._asdict())
    if not isinstance(returned, (list, tuple)):
        raise ModelFailed(f"the network returned a {type(returned).__name__}: expected a tensor, or several of them")
    if isinstance(returned, list) and not any(isinstance(value, torch.Tensor) for value in returned):
        return returned
    return {f"output_{number}": _array(value) for number, value in enumerate(returned)}


def _array(value: Any) -> Array:
    if not isinstance(value, torch.Tensor):
        raise ModelFailed(f"one of the network's outputs is a {type(value).__name__}: expected tensors")
    # numpy has no bfloat16.
    array: Array = (value.float() if value.dtype is torch.bfloat16 else value).numpy(force=True)
    return array
