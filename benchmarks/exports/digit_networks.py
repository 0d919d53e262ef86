"""Keras networks that read digits, as archives and as SavedModels: ``digit_networks.py FOLDER DIGITS_CSV_GZ``."""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

LAYERS = keras.layers
TRAINED_ON = 1500


def main(folder: Path, digits: Path) -> None:
    keras.utils.set_random_seed(0)
    table = np.loadtxt(digits, delimiter=",", dtype=np.float32)
    images, labels = table[:, :64].reshape(-1, 8, 8, 1) / 16, table[:, 64]
    network = convolutional()
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(images[:TRAINED_ON], labels[:TRAINED_ON], epochs=12, batch_size=32, verbose=0)
    np.save(folder / "inputs.npy", images[TRAINED_ON : TRAINED_ON + 64])
    np.save(folder / "labels.npy", labels[TRAINED_ON : TRAINED_ON + 64])
    np.save(folder / "answers.npy", network.predict(images[TRAINED_ON : TRAINED_ON + 64], verbose=0))
    network.save(folder / "network.keras")
    network.save(folder / "network.h5")
    network.export(folder / "network", verbose=False)
    in_sequence(network).save(folder / "sequential.keras")
    two_headed(network).save(folder / "two_headed.keras")
    two_headed(network).export(folder / "two_headed", verbose=False)
    several = of_two_inputs()
    several.save(folder / "two_inputs.keras")
    several.export(folder / "two_inputs", verbose=False)
    ages, pixels = np.float32([[31], [5]]), np.float32([[[1, 2], [3, 4]], [[0, 0], [0, 9]]])
    np.save(folder / "two_inputs.npy", several.predict({"age": ages, "pixels": pixels}, verbose=0))
    with_code(network).save(folder / "with_code.keras")
    tf.saved_model.save(Words(), folder / "words")
    tf.saved_model.save(tf.Module(), folder / "without_signature")


def convolutional() -> keras.Model:
    image = keras.Input((8, 8, 1), name="image")
    hidden = LAYERS.Conv2D(16, 3, activation="relu")(image)
    hidden = LAYERS.Dropout(0.2)(LAYERS.Flatten()(hidden))
    return keras.Model(image, LAYERS.Dense(10, activation="softmax", name="digit")(hidden))


def in_sequence(network: keras.Model) -> keras.Model:
    """The same layers, as most people write them down."""
    return keras.Sequential(network.layers)


def two_headed(network: keras.Model) -> keras.Model:
    ink = LAYERS.GlobalAveragePooling2D(name="ink")(network.input)
    return keras.Model(network.input, {"digit": network.output, "ink": ink})


def of_two_inputs() -> keras.Model:
    age, pixels = keras.Input((1,), name="age"), keras.Input((2, 2), name="pixels")
    joined = LAYERS.Concatenate()([age, LAYERS.Flatten()(pixels)])
    return keras.Model({"age": age, "pixels": pixels}, LAYERS.Dense(3, name="scores")(joined))


def with_code(network: keras.Model) -> keras.Model:
    """A network with a function of Python in it, which nobody should load who does not know its author."""
    return keras.Model(network.input, LAYERS.Lambda(lambda scores: scores * 2)(network.output))


class Words(tf.Module):
    """Takes texts, four at once and no more nor less."""

    @tf.function(input_signature=[tf.TensorSpec([4], tf.string, name="text")])
    def __call__(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"upper": tf.strings.upper(text, encoding="utf-8"), "bytes": tf.strings.length(text)}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
