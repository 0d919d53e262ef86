"""Serves a loaded PyTorch network, whichever of the three forms it was saved in."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from clipper.errors import ModelFailed
from clipper.model.frameworks.framework import FrameworkModel, FrameworkSource, thread_count
from clipper.model.frameworks.table import declared_record
from clipper.model.frameworks.tensors import Answer, in_batches_of
from clipper.model.model import Array, Inputs, Values
from clipper.values.types import CPU, DType, InputType

LIBRARY = f"torch {torch.__version__}"

Convert = Callable[[torch.Tensor], torch.Tensor]

_PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}

# PyTorch accepts the second setting only before its first operation.
torch.set_num_threads(thread_count())
torch.set_num_interop_threads(1)


def network(module: torch.nn.Module, source: FrameworkSource) -> FrameworkModel:
    """Return a module as a model. It does not declare its input, which is a list of float32 unless the deployment does.

    A record's tensors are its arguments by name.
    """
    input_type = declared_record(source.input_type) or (None if source.input_type else InputType(DType.FLOAT32))
    device = device_of(source)
    module = module.eval().to(device, _PRECISIONS.get(source.precision or ""))
    dtype = next((each.dtype for each in module.parameters() if each.is_floating_point()), torch.float32)
    # Whole numbers may be counts or indices, and stay whole; the uint8 of pictures becomes float.
    converted = (torch.float32, torch.float64, torch.uint8)

    def convert(inputs: torch.Tensor) -> torch.Tensor:
        return inputs.to(device, dtype if inputs.dtype in converted else None)

    predict_batch = predictor(module, convert, Answer.of(source))
    return FrameworkModel(predict_batch, input_type, LIBRARY, device=described(source, module.parameters()))


def device_of(source: FrameworkSource) -> torch.device:
    """Return the device for a model: the first of the GPUs that are reserved for it, if PyTorch can use it."""
    return torch.device("cuda" if source.has_gpu and torch.cuda.is_available() else "cpu")


def described(source: FrameworkSource, weights: Iterable[torch.Tensor]) -> str:
    """Return the device that the weights are on, as ``FrameworkModel.device``."""
    if not source.has_gpu:
        return ""
    device = next((each.device for each in weights), device_of(source))
    return CPU if device.type == "cpu" else f"{device.type} ({torch.cuda.get_device_name(device)})"


def predictor(
    call: Callable[..., Any], convert: Convert, answer: Answer, batch: int | None = None
) -> Callable[[Inputs], object]:
    """Return the function that answers a batch.

    Args:
        convert: makes inputs of the network's own type.
        batch: the exact number of rows of a call; None means any number.
    """

    def given(values: Values) -> Any:
        # Texts go unchanged to a network that takes them.
        return values if isinstance(values, list) else convert(torch.from_numpy(values))

    def predict_batch(inputs: Inputs) -> Any:
        with torch.inference_mode():
            if isinstance(inputs, dict):
                outputs = by_name(call(**{name: given(values) for name, values in inputs.items()}))
            else:
                outputs = by_name(call(given(inputs)))
        if not isinstance(outputs, dict):
            return outputs
        return answer.rows({name: _array(value) for name, value in outputs.items()})

    return in_batches_of(batch, predict_batch)


def by_name(returned: Any) -> dict[str, Any] | list[Any]:
    """Return the outputs by name; or the list that the network returned, if it has an answer for each row."""
    if isinstance(returned, torch.Tensor):
        return {"output": returned}
    if isinstance(returned, Mapping):
        return {str(name): value for name, value in returned.items()}
    if hasattr(returned, "_asdict"):  # a named tuple
        return by_name(returned._asdict())
    if not isinstance(returned, (list, tuple)):
        raise ModelFailed(f"the network returned a {type(returned).__name__}: expected a tensor, or several of them")
    if isinstance(returned, list) and not any(isinstance(value, torch.Tensor) for value in returned):
        return returned
    return {f"output_{number}": value for number, value in enumerate(returned)}


def _array(value: Any) -> Array:
    if not isinstance(value, torch.Tensor):
        raise ModelFailed(f"one of the network's outputs is a {type(value).__name__}: expected tensors")
    # numpy has no bfloat16.
    array: Array = (value.float() if value.dtype is torch.bfloat16 else value).numpy(force=True)
    return array
