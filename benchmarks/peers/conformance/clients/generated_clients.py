"""What clients find that others made of the protocol's own descriptions, OpenAPI and .proto."""

import json
import sys

import grpc
import pydantic_open_inference as pydantic_client
from open_inference.grpc.protocol import ModelInferRequest, ModelMetadataRequest
from open_inference.grpc.service import GRPCInferenceServiceStub
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.types import InferenceRequest
from showing import ROWS, infer_by_stubs, outcome, tell


class Rows(pydantic_client.InputsBaseModel):
    input: list[tuple[float, float, float, float]]


class Sums(pydantic_client.OutputsBaseModel):
    output: list[tuple[float]]


def by_openapi(url):
    client = OpenInferenceClient(base_url=url)
    client.check_server_liveness()
    client.check_server_readiness()
    client.check_model_readiness("total")
    client.check_model_version_readiness("total", "1")
    tensor = {"name": "input", "shape": [3, 4], "datatype": "FP32", "data": ROWS.flatten().tolist()}
    answer = json.loads(client.model_infer("total", request=InferenceRequest(inputs=[tensor])).json())
    (output,) = answer["outputs"]
    told = f"{output['name']} {output['datatype']} {output['shape']} {output['data']}"
    return f"{client.read_model_metadata('total').versions} {told}"


def by_pydantic(url):
    model = pydantic_client.RemoteModel(inputs_model=Rows, outputs_model=Sums, model_name="total", server_url=url)
    return str(model.infer(Rows(input=ROWS.tolist())).output)


def main(http, rpc):
    found = {
        "open-inference-openapi": outcome(lambda: by_openapi(f"http://{http}")),
        "pydantic-open-inference": outcome(lambda: by_pydantic(f"http://{http}")),
    }
    with grpc.insecure_channel(rpc) as channel:
        checks = infer_by_stubs(GRPCInferenceServiceStub(channel), ModelInferRequest, ModelMetadataRequest)
        found |= {f"open-inference-grpc, {name}": outcome(check) for name, check in checks.items()}
    tell(found)


main(*sys.argv[1:3])
