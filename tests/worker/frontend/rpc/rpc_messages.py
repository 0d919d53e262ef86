"""Our services' messages as protobuf's own library has them, in a pool that no other knows."""

from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from clipper.worker.frontend.rpc import protocols
from clipper.worker.frontend.rpc.reflection import describe

POOL = DescriptorPool()
for file in protocols.ALL:
    POOL.Add(descriptor_pb2.FileDescriptorProto.FromString(describe(file)))  # type: ignore[no-untyped-call]

INFER = "/inference.GRPCInferenceService/ModelInfer"
OBSERVE = "/clipper.Feedback/Observe"


def message_class(name: str) -> Any:
    """``name``: with its package."""
    return GetMessageClass(POOL.FindMessageTypeByName(name))  # type: ignore[no-untyped-call]


InferRequest = message_class("inference.ModelInferRequest")
InferResponse = message_class("inference.ModelInferResponse")


def raw_request(data: bytes, shape: list[int], datatype: str = "FP32", model: str = "app", **fields: Any) -> Any:
    """An infer request with one raw tensor."""
    request = InferRequest(model_name=model, raw_input_contents=[data], **fields)
    request.inputs.add(name="input", datatype=datatype, shape=shape)
    return request
