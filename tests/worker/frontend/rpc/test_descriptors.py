"""Our services by reflection, against protobuf's own compiler; and their numbers, against other clients'."""

import json
import subprocess
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from clipper.worker.frontend.rpc import protocols
from clipper.worker.frontend.rpc.reflection import describe
from scripts.real_models import environment
from tests.waiting import TIMEOUT_S

PROTOS = Path(protocols.__file__).parent / "protos"
ROOT = Path(__file__).parents[4]

# The first run on a machine builds the environment.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]

# Of each message that both know, each field that ours has: its number, label and kind.
LACKING = """
import json, sys
from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

def messages(scope, found):
    for message in found:
        yield f"{scope}{message.name}", message
        yield from messages(f"{scope}{message.name}.", message.nested_type)

def numbers(file):
    return {
        f"{name}.{field.name}": (field.number, field.label, field.type)
        for name, message in messages("", file.message_type)
        for field in message.field
    }

theirs = {}
for module in (service_pb2, model_config_pb2):
    file = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    theirs |= numbers(file)
ours = numbers(descriptor_pb2.FileDescriptorProto.FromString(sys.stdin.buffer.read()))
print(json.dumps([name for name, number in ours.items() if theirs.get(name) != number]))
"""


def as_compiled(tmp_path: Path, *names: str) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    found = tmp_path / "found"
    argv = [environment("open_inference"), "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"--descriptor_set_out={found}"]
    subprocess.run([*argv, *names], check=True, timeout=TIMEOUT_S)
    files = descriptor_pb2.FileDescriptorSet.FromString(found.read_bytes()).file
    return {file.name: file for file in files}


def without_what_is_implied(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    messages = list(file.message_type)
    for message in messages:
        messages.extend(message.nested_type)
        for field in message.field:
            field.ClearField("json_name")
    for service in file.service:
        for method in service.method:
            method.ClearField("options")
    return file


def test_descriptors_are_those_of_the_compiler(tmp_path: Path) -> None:
    own = {
        "open_inference.proto": protocols.OPEN_INFERENCE,
        "clipper.proto": protocols.CLIPPER,
        "health.proto": protocols.HEALTH,
        "reflection.proto": protocols.REFLECTION,
    }
    compiled = as_compiled(tmp_path, *own)
    for name, file in own.items():
        ours = descriptor_pb2.FileDescriptorProto.FromString(describe(file))
        ours.name = name
        assert ours == without_what_is_implied(compiled[name]), name


def test_numbers_are_those_that_tritons_client_has() -> None:
    described = describe(protocols.OPEN_INFERENCE)
    program = [environment("open_inference"), "-c", LACKING]
    done = subprocess.run(program, input=described, capture_output=True, timeout=TIMEOUT_S, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("name", ["open_inference.proto", "clipper.proto"])
def test_clients_find_the_files_where_the_docs_say(name: str) -> None:
    assert (ROOT / "proto" / name).read_text() == (PROTOS / name).read_text()
