"""The nets: real ones, which PyTorch computes on a GPU or on the processor with the same code."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.place import Place
from benchmarks.paper.bench import Bench, encode_inputs
from benchmarks.paper.data import fashion_mnist
from benchmarks.paper.training import exported_pictures
from benchmarks.rows.frameworks import EFFICIENTNET
from scripts.real_models import environment, exported

ENVIRONMENT = "torch"
# Of photos, so that a batch of so many can be asked; no answer comes from the cache.
PICTURES = 256
BODIES = 4000


@dataclass(frozen=True, slots=True)
class Net:
    """A net as TorchScript, and what it is asked.

    Attributes:
        connections: of clients that wait for their answers, enough for large batches.
        file: makes it the first time, and returns it.
    """

    name: str
    what: str
    input_type: str
    slo_ms: int
    connections: int
    file: Callable[[], Path]
    rows: Callable[[], NDArray[Any]]

    def write_bodies(self, path: Path) -> Path:
        """Write queries, one a line, for ``bodies.lua``."""
        texts = encode_inputs(self.rows()[:BODIES])
        path.write_bytes(b"".join(b'{"input":%b}\n' % text for text in texts))
        return path


def _efficientnet() -> Path:
    name, framework, photos = EFFICIENTNET
    return exported(name, framework, *photos)


def _photos() -> NDArray[Any]:
    photos: NDArray[Any] = np.load(_efficientnet() / "pictures.npy")
    return np.tile(photos, (PICTURES // len(photos), 1, 1, 1))


FASHION = Net(
    "fashion",
    "a convolutional net on 28 × 28 pictures of clothes, 784 numbers a query",
    "float32[784]",
    20,
    128,
    lambda: exported_pictures("fashion_torch", ENVIRONMENT, fashion_mnist().train) / "network.pt",
    lambda: fashion_mnist().test.inputs.astype(np.float32),
)
EFFICIENT = Net(
    "efficientnet",
    "EfficientNet-lite0 on photos of 224 × 224, 147 KiB of uint8 a query, as base64",
    "uint8[3,224,224]",
    200,
    64,
    lambda: _efficientnet() / "network.pt",
    _photos,
)
NETS = (FASHION, EFFICIENT)


def prepare() -> None:
    environment(ENVIRONMENT)
    for net in NETS:
        net.file()


def deploy(bench: Bench, place: Place, net: Net, name: str, *options: str) -> str:
    """Deploy a net; return where its library computes, as ``Place.check``.

    Raises:
        Missing: there are GPUs, and it computes elsewhere.
    """
    of_net = ("--input-type", net.input_type, "--output", "labels", "--no-cache", "--start-timeout", "110")
    of_place = ("--python", str(environment(ENVIRONMENT)), *place.options)
    bench.deploy({name: net.file()}, *of_net, *of_place, *options)
    [version] = bench.call("GET", f"models/{name}")["versions"]
    return place.check(version["runtime"])
