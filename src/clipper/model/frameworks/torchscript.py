"""PyTorch: a TorchScript archive (``torch.jit.save``), a complete program that needs no code of its author."""

import torch

from clipper.model.frameworks.framework import FrameworkModel, FrameworkSource
from clipper.model.frameworks.torch_network import device_of, network


def load(source: FrameworkSource) -> FrameworkModel:
    return network(torch.jit.load(str(source.path), map_location=device_of(source)), source)
