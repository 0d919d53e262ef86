"""TensorFlow: a SavedModel folder, served by its signature ``serving_default``."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from clipper.errors import ContainerFailed
from clipper.model.frameworks.framework import FrameworkModel, FrameworkSource, thread_count
from clipper.model.frameworks.tensors import Answer, Tensor, in_batches_of, named, texts, type_of
from clipper.model.model import Inputs, Values
from clipper.values.types import CPU

LIBRARY = f"tensorflow {tf.__version__}"

SIGNATURE = "serving_default"

# TensorFlow accepts these settings only before its first operation.
tf.config.threading.set_intra_op_parallelism_threads(thread_count())
tf.config.threading.set_inter_op_parallelism_threads(1)


def load(source: FrameworkSource) -> FrameworkModel:
    """Load the folder. Raises ContainerFailed without such a signature, or for a tensor that no input type fits."""
    saved = tf.saved_model.load(str(source.path))
    signature = _signature(saved.signatures)
    specs = dict(sorted(signature.structured_input_signature[1].items()))
    tensors = [described(name, spec) for name, spec in specs.items()]
    # The names are sorted, because TensorFlow returns them in a changing order.
    names = sorted(signature.structured_outputs)
    answer = Answer.of(source, names)

    def predict_batch(inputs: Inputs) -> Any:
        # Keep ``loaded`` alive: the signature does not.
        assert saved is not None
        outputs = signature(**{name: given(values, specs[name]) for name, values in named(inputs, tensors).items()})
        return answer.rows({key: texts(outputs[key].numpy()) for key in names})

    batch = tensors[0].fixed_batch
    takes = type_of(tensors, source.input_type)
    gives = answer.output_type(returned(signature.structured_outputs), batch)
    return FrameworkModel(in_batches_of(batch, predict_batch), takes, LIBRARY, batch, gives, device_of(source))


def device_of(source: FrameworkSource) -> str:
    """Return the device as ``FrameworkModel.device``: TensorFlow takes a GPU by itself if it can use one."""
    if not source.has_gpu:
        return ""
    found = tf.config.list_physical_devices("GPU")
    if not found:
        return CPU
    name = tf.config.experimental.get_device_details(found[0]).get("device_name")
    return f"cuda ({name})" if name else "cuda"


def given(inputs: Values, spec: tf.TensorSpec) -> tf.Tensor:
    """Convert a batch to the signature's tensor; texts become a column if the signature has one."""
    tensor = tf.convert_to_tensor(inputs, spec.dtype)
    return tf.reshape(tensor, (-1, *spec.shape[1:])) if spec.dtype == tf.string else tensor


def described(name: str, spec: tf.TensorSpec) -> Tensor:
    if spec.shape.rank is None:
        raise ContainerFailed(f"input {name!r} is of any rank: save the model with a signature that fixes it")
    return Tensor(name, spec.dtype.name, tuple(spec.shape))


def returned(specs: Mapping[str, tf.TensorSpec]) -> list[Tensor]:
    """Return the declared outputs, without those whose number of dimensions is open."""
    known = {name: spec for name, spec in specs.items() if spec.shape.rank is not None}
    return [Tensor(name, spec.dtype.name, tuple(spec.shape)) for name, spec in sorted(known.items())]


def _signature(signatures: Mapping[str, Any]) -> Any:
    if SIGNATURE not in signatures:
        there = ", ".join(sorted(signatures)) or "none"
        raise ContainerFailed(
            f"the SavedModel has no signature {SIGNATURE}, it has {there}: save it with "
            f"tf.saved_model.save(model, path, signatures={{'{SIGNATURE}': function}})"
        )
    return signatures[SIGNATURE]
