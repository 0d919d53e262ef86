"""Keras: a ``.keras`` archive, or the older ``.h5``, on TensorFlow."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from clipper.model.frameworks import tensorflow
from clipper.model.frameworks.framework import FrameworkModel, FrameworkSource
from clipper.model.frameworks.tensors import Answer, in_batches_of, named, texts, type_of
from clipper.model.model import Inputs

LIBRARY = f"keras {keras.__version__} on {tensorflow.LIBRARY}"


def load(source: FrameworkSource) -> FrameworkModel:
    """Load the model. A layer with Python code is refused, because the file could run any code. Raises ContainerFailed
    if the model takes a tensor that no type of input fits; ValueError if the file has Python code.
    """
    model = keras.saving.load_model(source.path, compile=False, safe_mode=True)
    specs = [tf.TensorSpec(each.shape, each.dtype, each.name) for each in model.inputs]
    tensors = [tensorflow.described(spec.name, spec) for spec in specs]
    names = _output_names(model)
    answer = Answer.of(source, names)
    # The function is traced once for batches of every size, because predict() takes milliseconds to prepare a batch.
    function = tf.function(lambda *inputs: model(inputs[0] if len(specs) == 1 else list(inputs), training=False))
    call = function.get_concrete_function(*specs)

    def predict_batch(inputs: Inputs) -> Any:
        given = zip(named(inputs, tensors).values(), specs)
        outputs = _by_name(call(*(tensorflow.given(values, spec) for values, spec in given)), names)
        return answer.rows({name: texts(value.numpy()) for name, value in outputs.items()})

    batch = tensors[0].fixed_batch
    takes = type_of(tensors, source.input_type)
    gives = answer.output_type(tensorflow.returned(_by_name(call.structured_outputs, names)), batch)
    where = tensorflow.device_of(source)
    return FrameworkModel(in_batches_of(batch, predict_batch), takes, LIBRARY, batch, gives, where)


def _output_names(model: keras.Model) -> list[str]:
    if isinstance(model, keras.Sequential):
        # A model from a file does not know its outputs' names, but only its last layer.
        return [model.layers[-1].name]
    return list(model.output) if isinstance(model.output, Mapping) else list(model.output_names)


def _by_name(returned: Any, names: list[str]) -> dict[str, Any]:
    if isinstance(returned, Mapping):
        return {str(name): value for name, value in returned.items()}
    return dict(zip(names, returned if isinstance(returned, (list, tuple)) else [returned]))
