"""PyTorch: a TorchScript archive (``torch.jit.save``). It is a program of its own: no code of its author is needed."""

import torch

from clipper.runtime.frameworks.framework import FrameworkModel, FrameworkSource
from clipper.runtime.frameworks.torch_network import network


def load(source: FrameworkSource) -> FrameworkModel:
    return network(torch.jit.load(str(source.path), map_location="cpu"), source)
