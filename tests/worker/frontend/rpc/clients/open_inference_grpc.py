"""The findings of open-inference's generated client on a server at ``argv[1]``, as a line of JSON."""

import json
import sys

import grpc
from google.protobuf.json_format import MessageToDict
from open_inference.grpc.protocol import (
    ModelInferRequest,
    ModelMetadataRequest,
    ModelReadyRequest,
    ServerMetadataRequest,
    ServerReadyRequest,
)
from open_inference.grpc.service import GRPCInferenceServiceStub


def main(url: str) -> None:
    with grpc.insecure_channel(url) as channel:
        stub = GRPCInferenceServiceStub(channel)
        request = ModelInferRequest(model_name="app", id="mine")
        tensor = request.inputs.add(name="input", datatype="FP32", shape=[2, 4])
        tensor.contents.fp32_contents.extend(range(8))
        answer = stub.ModelInfer(request)
        found = {
            "ready": stub.ServerReady(ServerReadyRequest()).ready,
            "model_ready": stub.ModelReady(ModelReadyRequest(name="app")).ready,
            "server": stub.ServerMetadata(ServerMetadataRequest()).name,
            "model": MessageToDict(stub.ModelMetadata(ModelMetadataRequest(name="app"))),
            "sums": list(answer.outputs[0].contents.fp64_contents),
            "id": answer.id,
        }
    print(json.dumps(found))


main(sys.argv[1])
