"""A convolutional network of PyTorch that tells clothes apart: ``fashion_torch.py FOLDER PICTURES_NPZ``."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

EPOCHS, BATCH = 5, 128


def main(folder: Path, pictures: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = np.load(pictures)
    inputs, labels = torch.from_numpy(data["inputs"].astype(np.float32)), torch.from_numpy(data["labels"])
    network = nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 10)),
    )
    scaled = inputs / 255
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(scaled[rows]), labels[rows]).backward()
            optimizer.step()
    torch.jit.script(Pixels(network.eval())).save(folder / "network.pt")


class Pixels(nn.Module):
    """Takes pixels from 0 to 255, as the other models do."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network(pixels / 255)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
