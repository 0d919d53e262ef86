"""Findings of the clients open-inference-openapi and pydantic-open-inference on a server at ``argv[1]``, as JSON."""

import json
import sys

import pydantic_open_inference as pydantic_client
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.types import InferenceRequest


class Rows(pydantic_client.InputsBaseModel):
    input: list[tuple[float, float, float, float]]


class Sums(pydantic_client.OutputsBaseModel):
    output: list[tuple[float]]


def main(url: str) -> None:
    client = OpenInferenceClient(base_url=url)
    client.check_server_liveness()
    client.check_server_readiness()
    client.check_model_readiness("app")
    client.check_model_version_readiness("app", "1")
    tensor = {"name": "input", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    answer = client.model_infer("app", request=InferenceRequest(inputs=[tensor]))
    remote = pydantic_client.RemoteModel(inputs_model=Rows, outputs_model=Sums, model_name="app", server_url=url)
    found = {
        "server": client.read_server_metadata().name,
        "versions": client.read_model_metadata("app").versions,
        "answer": json.loads(answer.json()),
        "sums": remote.infer(Rows(input=[(1, 2, 3, 4), (5, 6, 7, 8)])).output,
    }
    print(json.dumps(found))


main(f"http://{sys.argv[1]}")
