"""Small networks and what is no network, in the forms that PyTorch saves: ``small_networks.py FOLDER``."""

import sys
from pathlib import Path

import torch


class Twice(torch.nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * 2


class Heads(torch.nn.Module):
    def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"twice": (inputs * 2).to(torch.float16), "total": inputs.sum(dim=1), "is_large": inputs.sum(dim=1) > 5}


class Pair(torch.nn.Module):
    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return inputs, inputs.log()


class Sum(torch.nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left + right


def main(folder: Path) -> None:
    eye = torch.eye(2)
    torch.save({"linear.weight": eye}, folder / "eye.pth")
    torch.save({"linear.bias": eye}, folder / "other.pth")
    torch.save({"epoch": 3, "state": {"linear.weight": eye}}, folder / "checkpoint.pth")
    torch.save(Twice(), folder / "pickled.pth")
    # For four rows at once, no more and no less, and of a type that no query has.
    rows = torch.ones(4, 2, dtype=torch.int16)
    torch.export.save(torch.export.export(Twice(), (rows,)), folder / "four.pt2")
    torch.export.save(torch.export.export(Sum(), (rows, rows.clone())), folder / "sum.pt2")
    torch.jit.script(Sum()).save(folder / "sum.pt")
    any_rows = ({0: torch.export.Dim("rows", max=64)},)
    for name, module in (("heads", Heads()), ("pair", Pair())):
        program = torch.export.export(module, (torch.ones(4, 2),), dynamic_shapes=any_rows)
        torch.export.save(program, folder / f"{name}.pt2")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
