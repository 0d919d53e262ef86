"""PyTorch: a program exported by ``torch.export.save``, which tells what it takes."""

from collections.abc import Sequence
from typing import Any

import torch

from clipper.errors import ContainerFailed
from clipper.runtime.frameworks.framework import FrameworkModel, FrameworkSource
from clipper.runtime.frameworks.tensors import Tensor
from clipper.runtime.frameworks.torch_network import LIBRARY, predictor


def load(source: FrameworkSource) -> FrameworkModel:
    """Load the program.

    Raises:
        ContainerFailed: it takes more than one tensor, or one that no input of Clipper is.
    """
    program = torch.export.load(str(source.path))
    given = _input(program)
    predict_batch = predictor(program.module(), program.parameters(), source, given.fixed_batch)
    max_batch = given.fixed_batch or _most_rows(program)
    return FrameworkModel(predict_batch, given.input_type(source.input_type), LIBRARY, max_batch)


def _input(program: torch.export.ExportedProgram) -> Tensor:
    [example] = _examples(program)
    shape = tuple(size if isinstance(size, int) else None for size in example.shape)
    return Tensor("input", str(example.dtype).removeprefix("torch."), shape)


def _most_rows(program: torch.export.ExportedProgram) -> int | None:
    """Return the bound of the batch's dimension, if it was exported with one."""
    [example] = _examples(program)
    bound = program.range_constraints[example.shape[0].node.expr].upper
    return int(bound) if bound.is_Integer else None


def _examples(program: torch.export.ExportedProgram) -> Sequence[Any]:
    """Return the tensors without data that stand for the program's inputs in its graph."""
    names = program.graph_signature.user_inputs
    if len(names) != 1:
        raise ContainerFailed(
            f"the program takes {len(names)} inputs, {', '.join(map(str, names))}: expected one tensor of a batch; "
            "export a module that takes one"
        )
    return [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
