"""Keras: a ``.keras`` archive, or the older ``.h5``, on TensorFlow."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from clipper.errors import ContainerFailed
from clipper.model.frameworks import tensorflow
from clipper.model.frameworks.framework import FrameworkModel, FrameworkSource
from clipper.model.frameworks.tensors import Answer, in_batches_of, texts
from clipper.model.model import Inputs

LIBRARY = f"keras {keras.__version__} on {tensorflow.LIBRARY}"


def load(source: FrameworkSource) -> FrameworkModel:
    """Load the model. A layer with Python code is refused, because the file could run any code.

    Raises:
        ContainerFailed: the model takes more than one tensor.
        ValueError: the file has Python code.
    """
    model = keras.saving.load_model(source.path, compile=False, safe_mode=True)
    spec = _input(model)
    names = _output_names(model)
    answer = Answer.of(source, names)
    # Traced once for batches of every size, because predict() takes milliseconds to prepare each batch.
    call = tf.function(lambda inputs: model(inputs, training=False)).get_concrete_function(spec)

    def predict_batch(inputs: Inputs) -> Any:
        outputs = _by_name(call(tensorflow.given(inputs, spec)), names)
        return answer.rows({name: texts(value.numpy()) for name, value in outputs.items()})

    tensor = tensorflow.described(spec.name, spec)
    batch = tensor.fixed_batch
    gives = answer.output_type(tensorflow.returned(_by_name(call.structured_outputs, names)), batch)
    return FrameworkModel(
        in_batches_of(batch, predict_batch), tensor.input_type(source.input_type), LIBRARY, batch, gives
    )


def _input(model: keras.Model) -> tf.TensorSpec:
    if len(model.inputs) != 1:
        names = ", ".join(each.name for each in model.inputs)
        raise ContainerFailed(f"the model takes {len(model.inputs)} inputs, {names}: expected one tensor of a batch")
    [only] = model.inputs
    return tf.TensorSpec(only.shape, only.dtype, only.name)


def _output_names(model: keras.Model) -> list[str]:
    if isinstance(model, keras.Sequential):
        # A model read from a file does not know its outputs' names, only what its last layer returns.
        return [model.layers[-1].name]
    return list(model.output) if isinstance(model.output, Mapping) else list(model.output_names)


def _by_name(returned: Any, names: list[str]) -> dict[str, Any]:
    if isinstance(returned, Mapping):
        return {str(name): value for name, value in returned.items()}
    return dict(zip(names, returned if isinstance(returned, (list, tuple)) else [returned]))
