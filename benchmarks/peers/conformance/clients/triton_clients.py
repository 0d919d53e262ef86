"""What tritonclient finds: HTTP and gRPC, in JSON, in bytes and in typed contents, with asyncio, and in streams."""

import asyncio
import queue
import sys

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from showing import ECHOES, HOLES, ROWS, edges, outcome, shown, tell
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

GAP = np.array([[1, 2, 3, 4], [-1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
FOURS = {"total": ["output"], "classes": ["label", "probabilities"], "holes": ["output"]}
STREAMED = 64


def tensors(library, arrays, **settings):
    found = []
    for name, array in arrays.items():
        found.append(library.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        found[-1].set_data_from_numpy(array, **settings)
    return found


def text_of(answer, names):
    return "; ".join(f"{name} {shown(answer.as_numpy(name))}" for name in names)


def said(call):
    """The text of what a call returned, or the status of the error."""
    try:
        return call()
    except InferenceServerException as error:
        return f"refused, {str(error.status()).removeprefix('StatusCode.')}"


def metadata_of(client, name, **settings):
    found = client.get_model_metadata(name, **settings)
    return "; ".join(
        f"{what} {each['name']} {each['datatype']} {[int(size) for size in each['shape']]}".replace(", ", ",")
        for what in ("inputs", "outputs")
        for each in found[what]
    )


def config_of(client, name, **settings):
    found = client.get_model_config(name, **settings)
    found = found.get("config", found)
    return "; ".join(
        f"{what} {each['name']} {each['data_type']} {[int(size) for size in each['dims']]}".replace(", ", ",")
        for what in ("input", "output")
        for each in found[what]
    )


def both(library, client, as_json, **settings):
    """The checks of both protocols."""

    def infer(name, outputs=("output",), asked=None, **arrays):
        requested = None if asked is None else [library.InferRequestedOutput(each) for each in asked]
        return text_of(client.infer(name, tensors(library, arrays, **settings), outputs=requested), outputs)

    def id_of():
        answer = client.infer("total", tensors(library, {"input": ROWS}, **settings), request_id="mine")
        response = answer.get_response()
        names = ("id", "model_name", "model_version")
        return str([response[each] if isinstance(response, dict) else getattr(response, each) for each in names])

    text = np.array([["grün"], ["x" * 300]], dtype=object)
    return {
        "ready": lambda: str([client.is_server_live(), client.is_server_ready(), client.is_model_ready("total")]),
        "a model that is not there, ready": lambda: str(client.is_model_ready("nobody")),
        **{f"metadata of {name}": lambda name=name: metadata_of(client, name, **as_json) for name in (*FOURS, "pair")},
        **{f"configuration of {name}": lambda name=name: config_of(client, name, **as_json) for name in FOURS},
        **{name: lambda name=name, names=names: infer(name, names, input=ROWS) for name, names in FOURS.items()},
        "one of two outputs": lambda: infer("classes", FOURS["classes"], ["probabilities"], input=ROWS),
        "two inputs": lambda: infer("pair", x=ROWS[:, :2], times=ROWS[:, 3:]),
        "two inputs, the other way round": lambda: infer("pair", times=ROWS[:, 3:], x=ROWS[:, :2]),
        "NaN and infinity": lambda: infer("holes", input=HOLES),
        "texts": lambda: infer("texts", input=text),
        "ragged, rows alone": lambda: "; ".join(infer("ragged", input=ROWS[at : at + 1]) for at in range(3)),
        "ragged rows": lambda: infer("ragged", input=ROWS),
        "a row without an answer in the middle of a batch": lambda: infer("gaps", input=GAP),
        "a row without an answer alone": lambda: infer("gaps", input=GAP[1:2]),
        "id, model and version": id_of,
        **{f"a row of {name}": lambda name=name: infer(f"echo_{name}", input=edges(name)) for name in ECHOES},
        "one input of two": lambda: infer("pair", x=ROWS[:, :2]),
        "an input of another name": lambda: infer("pair", x=ROWS[:, :2], other=ROWS[:, 3:]),
        "two inputs of unequal rows": lambda: infer("pair", x=ROWS[:, :2], times=ROWS[:2, 3:]),
    }


async def with_asyncio(library, url):
    async with library.InferenceServerClient(url) as client:
        asked = [tensors(library, {"input": ROWS + number}) for number in range(20)]
        answers = await asyncio.gather(*(client.infer("total", each) for each in asked))
        return "; ".join(shown(each.as_numpy("output")) for each in answers)


def streamed(url, model, ids=True):
    """64 requests in one stream: what each was answered, and whether all had a final answer."""
    answers = queue.Queue()
    with triton_grpc.InferenceServerClient(url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(STREAMED):
            rows = tensors(triton_grpc, {"input": np.full((1, 4), number, np.float32)})
            client.async_stream_infer(
                model, rows, request_id=str(number) if ids else "", enable_empty_final_response=True
            )
        told = [answers.get(timeout=60) for _ in range(STREAMED)]
        client.stop_stream()
    errors = sum(error is not None for _, error in told)
    responses = [result.get_response() for result, error in told if error is None]
    sums = [float(result.as_numpy("output")[0, 0]) for result, error in told if error is None]
    right = [4.0 * int(each.id) for each in responses] if ids else [4.0 * number for number in range(STREAMED)]
    final = sum(each.parameters["triton_final_response"].bool_param for each in responses)
    return f"{len(responses)} answers, {errors} errors, {sum(map(float.__eq__, sums, right))} right, {final} final"


def stream_with_an_error(url):
    answers = queue.Queue()
    with triton_grpc.InferenceServerClient(url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for name in ("total", "nobody", "total"):
            client.async_stream_infer(name, tensors(triton_grpc, {"input": ROWS}), request_id=name)
        told = [answers.get(timeout=60) for _ in range(3)]
        client.stop_stream()
    return ", ".join(sorted("error" if error is not None else shown(r.as_numpy("output")) for r, error in told))


async def stream_with_asyncio(url):
    async def requests():
        for number in range(STREAMED):
            rows = tensors(triton_grpc_aio, {"input": np.full((1, 4), number, np.float32)})
            yield {"model_name": "total", "inputs": rows, "request_id": str(number)}

    async with triton_grpc_aio.InferenceServerClient(url) as client:
        found = set()
        async for result, error in client.stream_infer(requests()):
            if error is None:
                found.add((int(result.get_response().id), float(result.as_numpy("output")[0, 0])))
            if len(found) == STREAMED:
                break
    return f"{len(found)} answers, {sum(value == 4.0 * number for number, value in found)} right"


def typed(url):
    """In contents of the message, in place of bytes."""
    request = triton_grpc.service_pb2.ModelInferRequest(model_name="total", id="typed")
    own = request.inputs.add(name="input", datatype="FP32", shape=[1, 4])
    own.contents.fp32_contents.extend([1, 2, 3, 4])
    with triton_grpc.InferenceServerClient(url) as client:
        answer = client._client_stub.ModelInfer(request)
    (output,) = answer.outputs
    numbers = list(output.contents.fp32_contents) or np.frombuffer(answer.raw_output_contents[0], "<f4").tolist()
    return f"{output.datatype} {list(output.shape)} {numbers}"


def main(http, rpc):
    found = {}
    with triton_http.InferenceServerClient(http, concurrency=4) as client:
        for way, settings in (("bytes", {}), ("JSON", {"binary_data": False})):
            checks = both(triton_http, client, {}, **settings)
            found |= {f"{name}, HTTP in {way}": outcome(lambda: said(check)) for name, check in checks.items()}
        rows = tensors(triton_http, {"input": ROWS})
        found["async_infer, HTTP"] = outcome(
            lambda: "; ".join(
                shown(each.get_result().as_numpy("output"))
                for each in [client.async_infer("total", rows) for _ in range(4)]
            )
        )
        for way in ("gzip", "deflate"):
            found[f"{way} both ways, HTTP"] = outcome(
                lambda: text_of(
                    client.infer("total", rows, request_compression_algorithm=way, response_compression_algorithm=way),
                    ["output"],
                )
            )
    with triton_grpc.InferenceServerClient(rpc) as client:
        checks = both(triton_grpc, client, {"as_json": True})
        found |= {f"{name}, gRPC": outcome(lambda: said(check)) for name, check in checks.items()}
    found["asyncio, HTTP"] = outcome(lambda: asyncio.run(with_asyncio(triton_http_aio, http)))
    found["asyncio, gRPC"] = outcome(lambda: asyncio.run(with_asyncio(triton_grpc_aio, rpc)))
    found["64 requests in a stream"] = outcome(lambda: streamed(rpc, "total"))
    found["64 requests in a stream to a slow model"] = outcome(lambda: streamed(rpc, "slow"))
    found["64 requests without ids in a stream"] = outcome(lambda: streamed(rpc, "total", ids=False))
    found["an error in a stream"] = outcome(lambda: stream_with_an_error(rpc))
    found["a stream with asyncio"] = outcome(lambda: asyncio.run(stream_with_asyncio(rpc)))
    found["typed contents, gRPC"] = outcome(lambda: typed(rpc))
    tell(found)


main(*sys.argv[1:3])
