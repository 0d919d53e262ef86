"""The findings of tritonclient.http on a server at ``argv[1]``, as a line of JSON."""

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

ROW = np.array([[1, 2, 3, 4]], np.float32)
ROWS = np.arange(32, dtype=np.float32).reshape(8, 4)


def tensor(array: Any, datatype: str, *, binary: bool = True, name: str = "input") -> http.InferInput:
    found = http.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array, binary_data=binary)
    return found


def refused(call: Callable[[], object]) -> list[object]:
    """The status and the message of an error that a call has to raise."""
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return ["no error"]


def main(url: str) -> None:
    client = http.InferenceServerClient(url)
    found: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("app"),
        "version_ready": client.is_model_ready("app", "1"),
        "unknown_ready": client.is_model_ready("nobody"),
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata("app"),
        "config": client.get_model_config("app"),
        "index": client.get_model_repository_index(),
        "statistics": client.get_inference_statistics("app", "1")["model_stats"][0]["name"],
    }

    def infer(*inputs: http.InferInput, model: str = "app", **settings: Any) -> http.InferResult:
        return client.infer(model, list(inputs), **settings)

    asked = [http.InferRequestedOutput("output", binary_data=False), http.InferRequestedOutput("query_id")]
    found |= {
        "binary": infer(tensor(ROW, "FP32")).as_numpy("output").tolist(),
        "json": infer(tensor(ROW, "FP32", binary=False)).as_numpy("output").tolist(),
        "json_out": infer(tensor(ROW, "FP32"), outputs=asked[:1]).as_numpy("output").tolist(),
        "columns": len(set(infer(tensor(ROWS, "FP32"), outputs=asked).as_numpy("query_id").tolist())),
        "batch": infer(tensor(ROWS, "FP32")).as_numpy("output").tolist(),
        "id": infer(tensor(ROW, "FP32"), request_id="mine").get_response()["id"],
        "version": infer(tensor(ROW, "FP32"), model_version="2").as_numpy("output").tolist(),
        "gzip": infer(tensor(ROWS, "FP32"), request_compression_algorithm="gzip").as_numpy("output").tolist(),
        "deflate": infer(tensor(ROW, "FP32"), request_compression_algorithm="deflate").as_numpy("output").tolist(),
        "compressed_answer": infer(tensor(ROW, "FP32"), response_compression_algorithm="gzip")
        .as_numpy("output")
        .tolist(),
        "widened": infer(tensor(ROW.astype(np.int8), "INT8")).as_numpy("output").tolist(),
        "half": infer(tensor(ROW.astype(np.float16), "FP16")).as_numpy("output").tolist(),
        "parameters": infer(
            tensor(ROW, "FP32"), parameters={"context": "alice"}, timeout=10_000_000, priority=1
        ).get_response()["parameters"]["default"],
    }
    texts = np.array([["grün"], ["a" * 300]], np.object_)
    found["texts"] = [text.decode() for text in infer(tensor(texts, "BYTES"), model="text").as_numpy("output").flat]
    found["json_texts"] = [
        text.decode() if isinstance(text, bytes) else text
        for text in infer(tensor(texts, "BYTES", binary=False), model="text", outputs=asked[:1]).as_numpy("output").flat
    ]
    found["async"] = client.async_infer("app", [tensor(ROW, "FP32")]).get_result().as_numpy("output").tolist()
    short, long, surplus = tensor(ROW, "FP32"), tensor(ROW, "FP32"), tensor(ROW, "FP32")
    short._raw_data = short._raw_data[:-1]
    surplus._raw_data += b"\0"
    long._parameters["binary_data_size"] = 20
    region = http.InferInput("input", [1, 4], "FP32")
    region.set_shared_memory("region", 16)
    found["errors"] = {
        "unknown model": refused(lambda: infer(tensor(ROW, "FP32"), model="nobody")),
        "unknown version": refused(lambda: infer(tensor(ROW, "FP32"), model_version="9")),
        "datatype": refused(lambda: infer(tensor(ROW.astype(np.float64), "FP64"))),
        "shape": refused(lambda: infer(tensor(np.ones((1, 5), np.float32), "FP32"))),
        "short": refused(lambda: infer(short)),
        "surplus": refused(lambda: infer(surplus)),
        "size": refused(lambda: infer(long)),
        "output": refused(lambda: infer(tensor(ROW, "FP32"), outputs=[http.InferRequestedOutput("nothing")])),
        "classification": refused(
            lambda: infer(tensor(ROW, "FP32"), outputs=[http.InferRequestedOutput("output", class_count=2)])
        ),
        "sequence": refused(lambda: infer(tensor(ROW, "FP32"), sequence_id=5, sequence_start=True)),
        "region": refused(lambda: infer(region)),
        "load": refused(lambda: client.load_model("app")),
        "shared memory": refused(client.get_system_shared_memory_status),
        "trace": refused(client.get_trace_settings),
        "log": refused(client.get_log_settings),
    }
    print(json.dumps(found))


main(sys.argv[1])
