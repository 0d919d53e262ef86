"""PyTorch: a program exported by ``torch.export.save``, which declares its input."""

import torch

from clipper.errors import ContainerFailed
from clipper.model.frameworks.framework import FrameworkModel, FrameworkSource
from clipper.model.frameworks.tensors import Tensor
from clipper.model.frameworks.torch_network import LIBRARY, predictor


def load(source: FrameworkSource) -> FrameworkModel:
    """Load the program.

    Raises:
        ContainerFailed: it takes more than one tensor, or a tensor that no input of Clipper can be.
    """
    program = torch.export.load(str(source.path))
    name, example = _input(program)
    shape = tuple(size if isinstance(size, int) else None for size in example.shape)
    taken = Tensor(name, str(example.dtype).removeprefix("torch."), shape)
    input_type = taken.input_type(source.input_type)
    batch = taken.fixed_batch
    predict_batch = predictor(program.module(), lambda inputs: inputs.to(example.dtype), source, batch)
    return FrameworkModel(predict_batch, input_type, LIBRARY, batch or _most_rows(program, example))


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
