"""What MLServer's own clients find: its codecs by REST and by gRPC, and ``mlserver infer``."""

import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import grpc
import pandas as pd
from mlserver.codecs import Base64Codec, NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec, StringRequestCodec
from mlserver.grpc import dataplane_pb2_grpc
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.types import InferenceRequest, InferenceResponse
from showing import ECHOES, HOLES, ROWS, edges, outcome, shown, tell


def people(ages, jobs):
    # The codec does not know the type that pandas 3 gives to texts.
    return pd.DataFrame({"age": ages, "job": pd.Series(jobs, dtype=object), "visits": [2, 1]})


WHOLE = people([31.0, 4.5], ["cook", "grün"])
HOLED = people([31.0, None], ["cook", "grün"])
INTEGERS = people([31, 4], ["cook", "cook"])
# Frames that the codec refuses, whatever the server.
UNSENT = {
    "a missing text": people([31.0, 4.5], [None, "cook"]),
    "categories": WHOLE.astype({"job": "category"}),
    "pandas' own type of texts": WHOLE.astype({"job": "string"}),
}


def by_rest(http, model, request):
    body = request.model_dump_json(exclude_none=True).encode()
    url, headers = f"http://{http}/v2/models/{model}/infer", {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
        return InferenceResponse.model_validate(json.load(answer))


def by_grpc(rpc, model, request):
    with grpc.insecure_channel(rpc) as channel:
        stub = dataplane_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(ModelInferRequestConverter.from_types(request, model, None))
        return ModelInferResponseConverter.to_types(answer)


def decoded(response):
    """By the codec that MLServer's documentation names for a datatype."""
    found = []
    for output in response.outputs:
        if output.datatype == "BYTES":
            is_bytes = output.parameters is not None and output.parameters.content_type == "base64"
            texts = (Base64Codec if is_bytes else StringCodec).decode_output(output)
            found.append(f"{output.name} {texts}")
        else:
            found.append(f"{output.name} {shown(NumpyCodec.decode_output(output))}")
    return "; ".join(found)


def frame_of(response):
    return f"columns {PandasCodec.decode_response(response).to_dict('list')}"


def batch_of(http, model, bodies, *options):
    """What ``mlserver infer`` writes of a file of requests."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "asked", Path(folder) / "answered"
        asked.write_text("".join(f"{json.dumps(body)}\n" for body in bodies))
        program = Path(sys.executable).with_name("mlserver")
        command = [program, "infer", "-u", http, "-m", model, "-i", asked, "-o", answered, "-r", "1", *options]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        lines = [json.loads(line) for line in answered.read_text().splitlines()]
    lines.sort(key=lambda line: line["parameters"]["batch_index"])
    if any("error" in line for line in lines):
        return "; ".join("error" if "error" in line else "answer" for line in lines)
    return "; ".join(decoded(InferenceResponse.model_validate(line)) for line in lines)


def main(http, rpc):
    found = {}
    for protocol, use_bytes in (("REST", False), ("gRPC", True)):

        def ask(model, request, read=decoded):
            sent = by_rest(http, model, request) if protocol == "REST" else by_grpc(rpc, model, request)
            return read(sent)

        def tensor(model, rows):
            return ask(model, InferenceRequest(inputs=[NumpyCodec.encode_input("input", rows)]))

        def texts(codec, *values):
            encoded = codec.encode_input("input", list(values), use_bytes=use_bytes)
            return InferenceRequest(inputs=[encoded])

        def frame(of, read=decoded):
            return ask("people", PandasCodec.encode_request(of, use_bytes=use_bytes), read)

        whole = NumpyRequestCodec.encode_request(ROWS)
        checks = {
            "NumpyCodec": lambda: tensor("total", ROWS),
            "NumpyRequestCodec": lambda: ask("total", whole),
            "two outputs": lambda: tensor("classes", ROWS),
            "NaN in an answer": lambda: tensor("holes", HOLES[:, [0, 1, 3, 3]]),
            "infinity in an answer": lambda: tensor("holes", HOLES),
            "StringCodec": lambda: ask("texts", texts(StringCodec, "grün", "x")),
            "StringRequestCodec": lambda: ask(
                "texts", StringRequestCodec.encode_request(["grün"], use_bytes=use_bytes)
            ),
            "Base64Codec": lambda: ask("texts", texts(Base64Codec, b"plain", b"x")),
            "PandasCodec": lambda: frame(WHOLE),
            "PandasCodec, answer as a frame": lambda: frame(WHOLE, frame_of),
            "PandasCodec, missing values": lambda: frame(HOLED),
            "PandasCodec, whole numbers for floats": lambda: frame(INTEGERS),
            **{f"PandasCodec, {what}": lambda of=of: frame(of) for what, of in UNSENT.items()},
            **{f"a row of {name}": lambda name=name: tensor(f"echo_{name}", edges(name)) for name in ECHOES},
        }
        found |= {f"{name}, {protocol}": outcome(check) for name, check in checks.items()}
    rows = [InferenceRequest(inputs=[NumpyCodec.encode_input("input", ROWS[at : at + 1])]) for at in range(3)]
    bodies = [each.model_dump(exclude_none=True) for each in rows]
    text = InferenceRequest(inputs=[StringCodec.encode_input("input", ["grün"], use_bytes=False)])
    found["mlserver infer"] = outcome(lambda: batch_of(http, "total", bodies))
    found["mlserver infer, two workers"] = outcome(lambda: batch_of(http, "total", bodies, "-w", "2"))
    found["mlserver infer, batches of two"] = outcome(lambda: batch_of(http, "total", bodies, "-s", "2"))
    found["mlserver infer, two outputs"] = outcome(lambda: batch_of(http, "classes", bodies))
    found["mlserver infer, texts"] = outcome(lambda: batch_of(http, "texts", [text.model_dump(exclude_none=True)] * 2))
    tell(found)


main(*sys.argv[1:3])
