"""What stubs find that grpcio-tools makes of the .proto file ``argv[3]``."""

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc
from showing import infer_by_stubs, outcome, tell


def made(proto, folder):
    """The modules of a .proto file."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto.parent}", f"--python_out={folder}"]
    subprocess.run([*command, f"--grpc_python_out={folder}", str(proto)], check=True)
    sys.path.insert(0, folder)
    return importlib.import_module(f"{proto.stem}_pb2"), importlib.import_module(f"{proto.stem}_pb2_grpc")


def main(_http, rpc, proto):
    with tempfile.TemporaryDirectory() as folder, grpc.insecure_channel(rpc) as channel:
        messages, services = made(Path(proto), folder)
        stub = services.GRPCInferenceServiceStub(channel)
        checks = infer_by_stubs(stub, messages.ModelInferRequest, messages.ModelMetadataRequest)
        checks["ServerReady"] = lambda: str(stub.ServerReady(messages.ServerReadyRequest()))
        checks["two requests in a stream"] = lambda: ", ".join(
            sorted(
                each.infer_response.id
                for each in stub.ModelStreamInfer(
                    messages.ModelInferRequest(
                        model_name="m",
                        id=str(number),
                        inputs=[{"name": "input", "datatype": "FP64", "shape": [1, 4]}],
                        raw_input_contents=[bytes(32)],
                    )
                    for number in range(2)
                )
            )
        )
        tell({name: outcome(check) for name, check in checks.items()})


main(*sys.argv[1:])
