"""PyTorch: a program exported by ``torch.export.save``, which declares its input."""

import torch
from torch.utils._pytree import tree_unflatten

from clipper.errors import ContainerFailed
from clipper.model.frameworks.framework import FrameworkModel, FrameworkSource
from clipper.model.frameworks.tensors import Answer, Tensor
from clipper.model.frameworks.torch_network import LIBRARY, by_name, predictor


def load(source: FrameworkSource) -> FrameworkModel:
    """Load the program.

    Raises:
        ContainerFailed: it takes more than one tensor, or a tensor that no input of Clipper can be.
    """
    program = torch.export.load(str(source.path))
    name, example = _input(program)
    taken = _described(name, example)
    input_type = taken.input_type(source.input_type)
    batch = taken.fixed_batch
    outputs = _outputs(program)
    answer = Answer.of(source, list(outputs))
    predict_batch = predictor(program.module(), lambda inputs: inputs.to(example.dtype), answer, batch)
    gives = answer.output_type([_described(*output) for output in outputs.items()], batch)
    return FrameworkModel(predict_batch, input_type, LIBRARY, batch or _most_rows(program, example), gives)


def _described(name: str, example: torch.Tensor) -> Tensor:
    shape = tuple(size if isinstance(size, int) else None for size in example.shape)
    return Tensor(name, str(example.dtype).removeprefix("torch."), shape)


def _outputs(program: torch.export.ExportedProgram) -> dict[str, torch.Tensor]:
    """Return the program's outputs by name, as the tensors without data that stand for them; none if it has others."""
    examples = {node.name: node.meta.get("val") for node in program.graph.nodes}
    found = [examples.get(name) for name in program.graph_signature.user_outputs if isinstance(name, str)]
    spec = program.call_spec.out_spec
    if spec is None or spec.num_leaves != len(found) or not all(isinstance(each, torch.Tensor) for each in found):
        return {}
    outputs = by_name(tree_unflatten(found, spec))
    return outputs if isinstance(outputs, dict) else {}


def _most_rows(program: torch.export.ExportedProgram, example: torch.Tensor) -> int | None:
    """Return the bound of the batch's dimension, if it was exported with one."""
    bound = program.range_constraints[example.shape[0].node.expr].upper
    return int(bound) if bound.is_Integer else None


def _input(program: torch.export.ExportedProgram) -> tuple[str, torch.Tensor]:
    """Return the program's input by name, as the tensor without data that stands for it in the graph."""
    names = program.graph_signature.user_inputs
    if len(names) != 1:
        raise ContainerFailed(
            f"the program takes {len(names)} inputs, {', '.join(map(str, names))}: expected one tensor of a batch; "
            "export a module that takes one"
        )
    [name] = names
    return name, next(node.meta["val"] for node in program.graph.nodes if node.name == name)
