"""The findings of tritonclient.grpc on a server at ``argv[1]``, as a line of JSON."""

import json
import queue
import sys
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

ROW = np.array([[1, 2, 3, 4]], np.float32)
ROWS = np.arange(32, dtype=np.float32).reshape(8, 4)


def tensor(array: Any, datatype: str) -> triton.InferInput:
    found = triton.InferInput("input", list(array.shape), datatype)
    found.set_data_from_numpy(array)
    return found


def refused(call: Callable[[], object]) -> list[object]:
    """The status and the message of an error that a call has to raise."""
    try:
        call()
    except InferenceServerException as error:
        return [str(error.status()).removeprefix("StatusCode."), error.message()]
    return ["no error", ""]


def main(url: str) -> None:
    client = triton.InferenceServerClient(url)
    found: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("app"),
        "version_ready": client.is_model_ready("app", "1"),
        "unknown_ready": client.is_model_ready("nobody"),
        "server": client.get_server_metadata(as_json=True),
        "model": client.get_model_metadata("app", as_json=True),
        "config": client.get_model_config("app", as_json=True)["config"],
        "index": client.get_model_repository_index(as_json=True)["models"],
    }

    def infer(*inputs: triton.InferInput, model: str = "app", **settings: Any) -> triton.InferResult:
        return client.infer(model, list(inputs), **settings)

    def output(*inputs: triton.InferInput, **settings: Any) -> Any:
        return infer(*inputs, **settings).as_numpy("output").tolist()

    row = tensor(ROW, "FP32")
    asked = [triton.InferRequestedOutput("output"), triton.InferRequestedOutput("query_id")]
    found |= {
        "raw": [output(row), output(row), output(row)],
        "batch": output(tensor(ROWS, "FP32")),
        "columns": len(set(infer(tensor(ROWS, "FP32"), outputs=asked).as_numpy("query_id").tolist())),
        "id": infer(row, request_id="mine").get_response().id,
        "version": output(row, model_version="2"),
        "widened": output(tensor(ROW.astype(np.int8), "INT8")),
        "half": output(tensor(ROW.astype(np.float16), "FP16")),
        "gzip": output(tensor(ROWS, "FP32"), compression_algorithm="gzip"),
        "deflate": output(row, compression_algorithm="deflate"),
        "parameters": {
            name: next(value for _, value in choice.ListFields())
            for name, choice in infer(row, parameters={"context": "alice"}, timeout=10_000_000, priority=1)
            .get_response()
            .parameters.items()
            if name != "default"
        },
    }
    found["statistics"] = client.get_inference_statistics("app", as_json=True)["model_stats"][0]
    texts = np.array([["grün"], ["a" * 300]], np.object_)
    found["texts"] = [text.decode() for text in infer(tensor(texts, "BYTES"), model="text").as_numpy("output").flat]

    typed = service_pb2.ModelInferRequest(model_name="app", id="typed")
    own = typed.inputs.add(name="input", datatype="FP32", shape=[2, 4])
    own.contents.fp32_contents.extend(range(8))
    answer = client._client_stub.ModelInfer(typed)
    found["typed"] = [list(answer.outputs[0].contents.fp64_contents), len(answer.raw_output_contents)]

    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for name in ("app", "nobody", "app"):
        client.async_stream_infer(name, [row], request_id=name)
    told = [answers.get(timeout=30) for _ in range(3)]
    found["stream"] = [
        error.message() if error is not None else result.as_numpy("output").tolist() for result, error in told
    ]
    # As clients of decoupled models do: answers until each request has had its final one.
    waiting = {str(number) for number in range(64)}
    for name in waiting:
        client.async_stream_infer("app", [tensor(np.full((1, 4), int(name), np.float32), "FP32")], request_id=name)
    sums = {}
    while waiting:
        result, _ = answers.get(timeout=30)
        answer = result.get_response()
        sums[answer.id] = result.as_numpy("output").tolist()
        if answer.parameters["triton_final_response"].bool_param:
            waiting.remove(answer.id)
    client.stop_stream()
    found["streamed"] = sorted([int(name) * 4] == values[0] for name, values in sums.items())
    region = triton.InferInput("input", [1, 4], "FP32")
    region.set_shared_memory("region", 16)

    short, surplus, twice = tensor(ROW, "FP32"), tensor(ROW, "FP32"), tensor(ROW, "FP32")
    short._raw_content = short._raw_content[:-1]
    surplus._raw_content += b"\0"
    both = service_pb2.ModelInferRequest(model_name="app", raw_input_contents=[bytes(16)])
    both.inputs.add(name="input", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([1, 2, 3, 4])
    count = service_pb2.ModelInferRequest(model_name="app", raw_input_contents=[bytes(16), b""])
    count.inputs.add(name="input", datatype="FP32", shape=[1, 4])

    def raw(request: Any) -> Callable[[], object]:
        def ask() -> object:
            try:
                return client._client_stub.ModelInfer(request)
            except grpc.RpcError as error:
                raise InferenceServerException(error.details(), status=str(error.code())) from None

        return ask

    found["errors"] = {
        "unknown model": refused(lambda: infer(row, model="nobody")),
        "unknown version": refused(lambda: infer(row, model_version="9")),
        "datatype": refused(lambda: infer(tensor(ROW.astype(np.float64), "FP64"))),
        "shape": refused(lambda: infer(tensor(np.ones((1, 5), np.float32), "FP32"))),
        "short": refused(lambda: infer(short)),
        "surplus": refused(lambda: infer(surplus)),
        "two inputs": refused(lambda: infer(row, twice)),
        "contents and raw": refused(raw(both)),
        "two raw": refused(raw(count)),
        "output": refused(lambda: infer(row, outputs=[triton.InferRequestedOutput("nothing")])),
        "classification": refused(lambda: infer(row, outputs=[triton.InferRequestedOutput("output", class_count=2)])),
        "sequence": refused(lambda: infer(row, sequence_id=5, sequence_start=True)),
        "deadline": refused(lambda: infer(row, model="slow", client_timeout=0.2)),
        "timeout": refused(lambda: infer(row, model="slow", timeout=200_000)),
        "region": refused(lambda: infer(region)),
        "load": refused(lambda: client.load_model("app")),
        "shared memory": refused(client.get_system_shared_memory_status),
        "trace": refused(client.get_trace_settings),
        "log": refused(client.get_log_settings),
    }
    print(json.dumps(found))


main(sys.argv[1])
