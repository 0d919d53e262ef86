"""PyTorch: a program exported by ``torch.export.save``, which declares its input."""

from typing import Any

import torch
from torch.export.passes import move_to_device_pass
from torch.utils._pytree import tree_unflatten

from clipper.model.frameworks.framework import FrameworkModel, FrameworkSource
from clipper.model.frameworks.tensors import Answer, Tensor, named, type_of
from clipper.model.frameworks.torch_network import LIBRARY, by_name, described, device_of, predictor
from clipper.model.model import Inputs


def load(source: FrameworkSource) -> FrameworkModel:
    """Load the program. Raises ContainerFailed if the program takes a tensor that no type of input fits."""
    program = torch.export.load(str(source.path))
    device = device_of(source)
    if device.type != "cpu":
        program = move_to_device_pass(program, device)
    examples = _inputs(program)
    tensors = [_described(name, example) for name, example in examples.items()]
    takes = type_of(tensors, source.input_type)
    module = program.module()
    outputs = _outputs(program)
    answer = Answer.of(source, list(outputs))

    def call(*only: torch.Tensor, **several: torch.Tensor) -> Any:
        given = only or [several[name] for name in examples]
        return module(*(value.to(device, example.dtype) for value, example in zip(given, examples.values())))

    batch = tensors[0].fixed_batch
    predict = predictor(call, lambda inputs: inputs, answer, batch)

    def predict_batch(inputs: Inputs) -> object:
        return predict(named(inputs, tensors) if isinstance(inputs, dict) else inputs)

    most = batch or _most_rows(program, next(iter(examples.values())))
    gives = answer.output_type([_described(*output) for output in outputs.items()], batch)
    where = described(source, program.state_dict.values())
    return FrameworkModel(predict_batch, takes, LIBRARY, most, gives, where)


def _described(name: str, example: torch.Tensor) -> Tensor:
    shape = tuple(size if isinstance(size, int) else None for size in example.shape)
    return Tensor(name, str(example.dtype).removeprefix("torch."), shape)


def _outputs(program: torch.export.ExportedProgram) -> dict[str, torch.Tensor]:
    """Return the program's outputs by name, as placeholders without data; none if some outputs are no tensors."""
    examples = {node.name: node.meta.get("val") for node in program.graph.nodes}
    found = [examples.get(name) for name in program.graph_signature.user_outputs if isinstance(name, str)]
    spec = program.call_spec.out_spec
    if spec is None or spec.num_leaves != len(found) or not all(isinstance(each, torch.Tensor) for each in found):
        return {}
    outputs = by_name(tree_unflatten(found, spec))
    return outputs if isinstance(outputs, dict) else {}


def _most_rows(program: torch.export.ExportedProgram, example: torch.Tensor) -> int | None:
    """Return the bound of the batch's dimension, if it was exported with a bound."""
    bound = program.range_constraints[example.shape[0].node.expr].upper
    return int(bound) if bound.is_Integer else None


def _inputs(program: torch.export.ExportedProgram) -> dict[str, torch.Tensor]:
    """Return the program's inputs by name, as the graph's placeholders without data."""
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    return {str(name): values[name] for name in program.graph_signature.user_inputs}
