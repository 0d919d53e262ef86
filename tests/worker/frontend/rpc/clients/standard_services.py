"""The findings of gRPC's own clients on a server at ``argv[1]`` by reflection and health, as a line of JSON."""

import json
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main(url: str) -> None:
    channel = grpc.insecure_channel(url)
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    service = pool.FindServiceByName("inference.GRPCInferenceService")
    found = {
        "services": sorted(database.get_services()),
        "methods": sorted(method.name for method in service.methods),
    }
    # As grpcurl calls what it knows by reflection alone.
    observe = pool.FindServiceByName("clipper.Feedback").FindMethodByName("Observe")
    infer = service.FindMethodByName("ModelInfer")

    def call(method, **fields):
        request = GetMessageClass(method.input_type)(**fields)
        path = f"/{method.containing_service.full_name}/{method.name}"
        read = GetMessageClass(method.output_type).FromString
        return channel.unary_unary(
            path, request_serializer=lambda each: each.SerializeToString(), response_deserializer=read
        )(request)

    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "contents": {"fp32_contents": [1, 2, 3, 4]}}
    answer = call(infer, model_name="app", inputs=[tensor])
    query_id = answer.parameters["query_id"].int64_param
    observations = [
        {"query_id": query_id, "label_json": "10.0"},
        {"query_id": query_id, "label_json": "10.0"},
        {"query_id": 1, "label_json": "10.0"},
        {"label_json": "10.0"},
    ]
    told = call(observe, model_name="app", observations=observations)
    found["observed"] = [[each.duplicate, each.error] for each in told.observed]
    health = health_pb2_grpc.HealthStub(channel)
    found["health"] = {
        name: health.Check(health_pb2.HealthCheckRequest(service=name)).status
        for name in ("", "inference.GRPCInferenceService")
    }
    found["watched"] = next(iter(health.Watch(health_pb2.HealthCheckRequest()))).status
    try:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"))
    except grpc.RpcError as error:
        found["unknown"] = error.code().name
    print(json.dumps(found))


main(sys.argv[1])
