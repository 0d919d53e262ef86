"""The protocol's metadata of the server and its models. Each model of the protocol is an application."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from clipper import __version__
from clipper.control.statistics import BatchesOfSize, HistogramData, VersionStatistics, WorkerStatistics
from clipper.values.records import RecordType, ValueType
from clipper.values.types import DType, ModelId
from clipper.worker.frontend.inference.answers import BASE64
from clipper.worker.frontend.inference.output_tensors import OutputTensor, OutputTensors
from clipper.worker.frontend.inference.requests import FEATURES, INPUT
from clipper.worker.frontend.inference.tensors import DATATYPES, MAX_ROWS, batch_shape, datatype_of

PLATFORM = "clipper"
# perf_analyzer takes every version in the statistics for a number, and crashes at any other version.
STATISTICS = "statistics"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "parameters", "model_repository")

# The room in a body for the JSON or the fields that describe its tensors.
HEAD_BYTES = 4096
_INPUT_FLAGS = {"format": "FORMAT_NONE", "is_shape_tensor": False, "allow_ragged_batch": False, "optional": False}

Json = dict[str, Any]
# For each version, the models that have it, and whether each can be queried; see ``Targets.versions``.
Versions = Mapping[str, Mapping[str, bool]]


def is_number(version: str) -> bool:
    """Whether a version is a whole number of at most 64 bits, as all of Triton's are."""
    return version.isascii() and version.isdigit() and len(version) <= 18


def server(versions: Iterable[str]) -> Json:
    """Return the server's metadata. ``versions`` are those of all models."""
    extensions = [*EXTENSIONS, STATISTICS] if all(map(is_number, versions)) else list(EXTENSIONS)
    return {"name": "clipper", "version": __version__, "extensions": extensions}


def model(
    name: str, versions: Sequence[str], input_type: ValueType, features_size: int | None, outputs: OutputTensors
) -> Json:
    """Return a model's metadata."""
    if isinstance(input_type, RecordType):
        fields = {field.name: field.type for field in input_type.fields}
    else:
        fields = {INPUT: input_type}
    inputs = [
        {"name": field, "datatype": datatype_of(of_type.dtype).name, "shape": batch_shape(of_type)}
        for field, of_type in fields.items()
    ]
    if features_size is not None:
        inputs.append({"name": FEATURES, "datatype": "FP64", "shape": [-1, features_size]})
    found = [_output(tensor) for tensor in outputs.tensors]
    return {"name": name, "versions": list(versions), "platform": PLATFORM, "inputs": inputs, "outputs": found}


def _output(tensor: OutputTensor) -> Json:
    """Return an output's metadata, with the form of bytes in JSON and its only values, such as names of classes."""
    said: Json = {"name": tensor.name, "datatype": tensor.datatype, "shape": [-1, *tensor.shape]}
    parameters = dict(BASE64) if tensor.field is not None and tensor.field.type.dtype is DType.BYTES else {}
    if tensor.field is not None and tensor.field.categories:
        parameters["categories"] = msgspec.json.encode(tensor.field.categories).decode()
    return said | {"parameters": parameters} if parameters else said


def most_rows(input_type: ValueType, features_size: int | None, most_body_bytes: int) -> int:
    """Return how many rows a request may have: as many as fit as bytes into its body, if their size is known."""
    parts = [field.type for field in input_type.fields] if isinstance(input_type, RecordType) else [input_type]
    sizes = [part.row_bytes for part in parts if part.row_bytes is not None]
    if len(sizes) < len(parts):
        return MAX_ROWS
    row_bytes = sum(sizes) + (features_size or 0) * DType.FLOAT64.size_bytes
    return max(1, min(MAX_ROWS, (most_body_bytes - HEAD_BYTES) // row_bytes))


def config(of_model: Json, max_batch_size: int) -> Json:
    """Return a model's configuration as Triton's, of a row's shapes. ``max_batch_size``: see ``most_rows``."""
    inputs = [{**_configured(each), **_INPUT_FLAGS} for each in of_model["inputs"]]
    outputs = [{**_configured(each), "label_filename": "", "is_shape_tensor": False} for each in of_model["outputs"]]
    return {
        "name": of_model["name"],
        "platform": PLATFORM,
        "backend": PLATFORM,
        "max_batch_size": max_batch_size,
        "input": inputs,
        "output": outputs,
        "batch_input": [],
        "batch_output": [],
        "instance_group": [],
        "dynamic_batching": {},
        "parameters": {},
        "model_warmup": [],
        "model_transaction_policy": {"decoupled": False},
    }


def _configured(tensor: Json) -> Json:
    data_type = DATATYPES[tensor["datatype"]].config
    return {"name": tensor["name"], "data_type": data_type, "dims": tensor["shape"][1:]}


def index(versions: Mapping[str, Versions], only_ready: bool) -> list[Json]:
    """Return the repository index, of all versions or of those that can be queried."""
    return [
        {
            "name": name,
            "version": version,
            "state": "READY" if is_ready else "UNAVAILABLE",
            "reason": "" if is_ready else "no replica is connected",
        }
        for name, of_name in versions.items()
        for version, ready in of_name.items()
        if (is_ready := any(ready.values())) or not only_ready
    ]


def asked_models(asked: Mapping[str, Versions]) -> set[ModelId]:
    """Return the models whose statistics ``statistics`` needs."""
    return {ModelId(each, name) for versions in asked.values() for name, models in versions.items() for each in models}


def statistics(asked: Mapping[str, Versions], workers: Sequence[WorkerStatistics]) -> Json:
    """Return the workers' counts. ``asked`` has the versions of each application."""
    found: dict[tuple[str, str], list[VersionStatistics]] = {}
    for worker in workers:
        for each in worker.versions:
            found.setdefault((each.model, each.version), []).append(each)
    return {
        "model_stats": [
            _counted(name, version, [each for model in models for each in found.get((model, version), ())])
            for name, versions in asked.items()
            for version, models in versions.items()
        ]
    }


def _counted(name: str, version: str, counted: Sequence[VersionStatistics]) -> Json:
    answered = sum(each.outputs + each.cache_hits + each.cache_joins for each in counted)
    failed = sum(each.model_errors + each.rejected + each.expired for each in counted)
    hits = sum(each.cache_hits for each in counted)
    batches, evaluation_s = _summed([each.batch_latency_s for each in counted])
    _, wait_s = _summed([each.queue_wait_s for each in counted])
    evaluated = sum(each.outputs for each in counted)
    return {
        "name": name,
        "version": version,
        "last_inference": int(max((each.last_answered_at for each in counted), default=0.0) * 1000),
        "inference_count": answered,
        "execution_count": batches,
        "inference_stats": {
            "success": _duration(answered, wait_s + evaluation_s),
            "fail": _duration(failed, 0.0),
            "queue": _duration(answered + failed, wait_s),
            "compute_input": _duration(evaluated, 0.0),
            "compute_infer": _duration(evaluated, evaluation_s),
            "compute_output": _duration(evaluated, 0.0),
            "cache_hit": _duration(hits, 0.0),
            "cache_miss": _duration(sum(each.cache_misses for each in counted), 0.0),
        },
        "batch_stats": _by_size([each.batches for each in counted]),
        "memory_usage": [],
    }


def _by_size(counted: Sequence[Mapping[int, BatchesOfSize]]) -> list[Json]:
    """Return the batches of each size, the smallest first."""
    found: dict[int, list[BatchesOfSize]] = {}
    for each in counted:
        for size, batches in each.items():
            found.setdefault(size, []).append(batches)
    return [
        {
            "batch_size": size,
            "compute_input": _duration(count, 0.0),
            "compute_infer": _duration(count, sum(each.sum_s for each in found[size])),
            "compute_output": _duration(count, 0.0),
        }
        for size in sorted(found)
        for count in [sum(each.count for each in found[size])]
    ]


def _summed(histograms: Sequence[HistogramData]) -> tuple[int, float]:
    return sum(sum(each.counts) for each in histograms), sum(each.sum for each in histograms)


def _duration(count: int, seconds: float) -> Json:
    return {"count": count, "ns": int(seconds * 1_000_000_000)}
