"""How a client's program says what it got, for each check a text. Runs in the clients' environments."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

# The rows of all checks: four numbers each.
ROWS = np.array([[1, 2, 3, 4], [4, 3, 2, 1], [2, 2, 5, 0]], np.float32)
HOLES = np.array([[-1, 2, 200, 4]], np.float32)
ECHOES = {"bool": "?", "uint8": "u1", "int32": "i4", "int64": "i8", "fp32": "f4", "fp64": "f8"}
# Of each numeric datatype, numbers that only it can hold whole.
EDGES = {
    "bool": [True, False, True, True],
    "uint8": [0, 1, 254, 255],
    "int32": [-(2**31), -1, 1, 2**31 - 1],
    "int64": [-(2**63), -1, 2**53 + 1, 2**63 - 1],
    "fp32": [-0.0, 1e-45, 16777216.0, 3.4e38],
    "fp64": [-0.0, 5e-324, 0.1, 1.7e308],
}


def edges(name: str) -> Any:
    return np.array([EDGES[name]], ECHOES[name])


def shown(array: Any) -> str:
    """The dtype, the shape and the elements of an array."""
    if array is None:
        return "no array"
    if array.dtype.kind in "SO":
        texts = [each.decode() if isinstance(each, bytes) else str(each) for each in array.flatten()]
        array = np.array(texts, dtype=str).reshape(array.shape)
    kind = "text" if array.dtype.kind == "U" else array.dtype.name
    return f"{kind} {json.dumps(list(array.shape)).replace(' ', '')} {json.dumps(array.tolist()).replace(' ', '')}"


def outcome(call: Callable[[], Any]) -> str:
    """What a call returned, a text or an array, or the class of what it raised."""
    try:
        found = call()
    except Exception as error:  # noqa: BLE001  whatever a client makes of it
        return f"raises {type(error).__name__}"
    return found if isinstance(found, str) else shown(found)


def tell(found: dict[str, str]) -> None:
    print(json.dumps(found))


def infer_by_stubs(stub: Any, request_of: Any, metadata_of: Any) -> dict[str, Callable[[], str]]:
    """The checks of stubs of gRPC; ``request_of`` and ``metadata_of`` make messages."""

    def infer() -> str:
        request = request_of(model_name="total", id="mine")
        tensor = request.inputs.add(name="input", datatype="FP32", shape=list(ROWS.shape))
        tensor.contents.fp32_contents.extend(ROWS.flatten().tolist())
        answer = stub.ModelInfer(request)
        (output,), raw = answer.outputs, answer.raw_output_contents
        numbers = np.frombuffer(raw[0], "<f4").tolist() if raw else list(output.contents.fp32_contents)
        return f"{answer.id} {output.name} {output.datatype} {list(output.shape)} {numbers}"

    def metadata() -> str:
        answer = stub.ModelMetadata(metadata_of(name="total"))
        tensors = [f"{each.name} {each.datatype} {list(each.shape)}" for each in [*answer.inputs, *answer.outputs]]
        return "; ".join(tensors)

    return {"ModelInfer": infer, "ModelMetadata": metadata}
