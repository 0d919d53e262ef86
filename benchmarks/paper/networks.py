"""Five networks as unequal as the paper's of figure 8, and what they answer to 20,000 images that none has seen.

The paper's five, on CIFAR-10, err 9, 17, 24, 35 and 46 % (its authors' notebooks). Those here see fewer of
Fashion-MNIST's images the worse they are to be.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from benchmarks.paper.data import fashion_mnist
from benchmarks.paper.training import trained

# From best to worst: hidden layers, and how many images it is fitted to.
NETWORKS: dict[str, tuple[tuple[int, ...], int]] = {
    "best": ((256,), 20_000),
    "second": ((32,), 2_500),
    "third": ((16,), 400),
    "fourth": ((8,), 250),
    "worst": ((16,), 50),
}


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the networks answer.

    Attributes:
        labels: of the images, (images,).
        given: by image and network, in the order of ``NETWORKS``, (images, networks).
    """

    labels: NDArray[np.int64]
    given: NDArray[np.int64]


def network(name: str) -> Path:
    """Return the file of a network, fitted."""
    layers, images = NETWORKS[name]
    estimator = make_pipeline(
        MaxAbsScaler(), MLPClassifier(layers, max_iter=16 if images > 5_000 else 60, random_state=0)
    )
    return trained(estimator, fashion_mnist().train[:images])


@cache
def outputs() -> Outputs:
    """Of all networks on the 20,000 images of the stream."""
    stream = fashion_mnist().stream
    given = [joblib.load(network(name)).predict(stream.inputs) for name in NETWORKS]
    return Outputs(stream.labels, np.stack(given, axis=1))
