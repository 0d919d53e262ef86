"""The reflection service: describes services and messages, as FileDescriptorProto, to tools that know none of them."""

from collections.abc import Iterable

from clipper.worker.frontend.rpc.protocols import ALL, REFLECTION
from clipper.worker.frontend.rpc.schema import SCALARS, Enum, Field, File, Message, parse
from clipper.worker.frontend.rpc.wire import Values, decode, encode

_ENUM, _MESSAGE = 14, 11
_ONE, _REPEATED = 1, 3

# The needed part of google/protobuf/descriptor.proto. A field in a oneof is written even if it is 0.
_DESCRIPTOR = parse(
    "descriptor.proto",
    """
package google.protobuf;
message FileDescriptorProto {
  string name = 1; string package = 2; repeated DescriptorProto message_type = 4;
  repeated EnumDescriptorProto enum_type = 5; repeated ServiceDescriptorProto service = 6; string syntax = 12;
}
message DescriptorProto {
  string name = 1; repeated FieldDescriptorProto field = 2; repeated DescriptorProto nested_type = 3;
  repeated EnumDescriptorProto enum_type = 4; MessageOptions options = 7; repeated OneofDescriptorProto oneof_decl = 8;
}
message MessageOptions { bool map_entry = 7; }
message OneofDescriptorProto { string name = 1; }
message FieldDescriptorProto {
  string name = 1; int32 number = 3; int32 label = 4; int32 type = 5; string type_name = 6;
  oneof given { int32 oneof_index = 9; }
}
message EnumDescriptorProto { string name = 1; repeated EnumValueDescriptorProto value = 2; }
message EnumValueDescriptorProto { string name = 1; oneof given { int32 number = 2; } }
message ServiceDescriptorProto { string name = 1; repeated MethodDescriptorProto method = 2; }
message MethodDescriptorProto {
  string name = 1; string input_type = 2; string output_type = 3;
  bool client_streaming = 5; bool server_streaming = 6;
}
""",
)


def describe(file: File) -> bytes:
    """Return a file's serialised FileDescriptorProto."""
    return encode(
        _DESCRIPTOR.message("FileDescriptorProto"),
        {
            "name": file.name,
            "package": file.package,
            "message_type": [_message(each) for each in file.messages],
            "enum_type": _enums(file.enums),
            "service": [
                {
                    "name": _bare(service.name),
                    "method": [
                        {
                            "name": method.name,
                            "input_type": f".{method.request.name}",
                            "output_type": f".{method.reply.name}",
                            "client_streaming": method.streams_request,
                            "server_streaming": method.streams_reply,
                        }
                        for method in service.methods.values()
                    ],
                }
                for service in file.services
            ],
            "syntax": "proto3",
        },
    )


def _message(message: Message) -> dict[str, object]:
    oneofs = list(dict.fromkeys(field.oneof for field in message.fields.values() if field.oneof))
    return {
        "name": _bare(message.name),
        "field": [_field(field, oneofs) for field in message.fields.values()],
        "nested_type": [_message(each) for each in message.messages],
        "enum_type": _enums(message.enums),
        "options": {"map_entry": True} if message.is_entry else None,
        "oneof_decl": [{"name": name} for name in oneofs],
    }


def _field(field: Field, oneofs: list[str]) -> dict[str, object]:
    described: dict[str, object] = {
        "name": field.name,
        "number": field.number,
        "label": _REPEATED if field.is_repeated else _ONE,
        "type": SCALARS.get(field.kind, _ENUM if isinstance(field.type, Enum) else _MESSAGE),
    }
    if field.type is not None:
        described["type_name"] = f".{field.type.name}"
    if field.oneof:
        described["oneof_index"] = oneofs.index(field.oneof)
    return described


def _enums(enums: Iterable[Enum]) -> list[dict[str, object]]:
    return [
        {
            "name": _bare(enum.name),
            "value": [{"name": name, "number": number} for name, number in enum.values.items()],
        }
        for enum in enums
    ]


def _bare(name: str) -> str:
    return name.rpartition(".")[2]


_REQUEST, _RESPONSE = (REFLECTION.message(f"ServerReflection{kind}") for kind in ("Request", "Response"))
_NOT_FOUND = 5
_BY_NAME = {file.name: describe(file) for file in ALL}
_BY_SYMBOL = {
    symbol: _BY_NAME[file.name]
    for file in ALL
    for symbol in (
        *file.types(),
        *(service.name for service in file.services),
        *(f"{service.name}.{method}" for service in file.services for method in service.methods),
    )
}


def reflect(message: bytes) -> bytes:
    """Return the answer to a request. Raises MalformedRequest if it is not a message."""
    asked = decode(_REQUEST, memoryview(message))
    return encode(_RESPONSE, {"valid_host": asked.get("host"), "original_request": asked, **_answer(asked)})


def _answer(asked: Values) -> Values:
    if "list_services" in asked:
        services = [{"name": service.name} for file in ALL for service in file.services]
        return {"list_services_response": {"service": services}}
    for by, known in (("file_by_filename", _BY_NAME), ("file_containing_symbol", _BY_SYMBOL)):
        if by in asked and asked[by] in known:
            return {"file_descriptor_response": {"file_descriptor_proto": [known[asked[by]]]}}
    return {"error_response": {"error_code": _NOT_FOUND, "error_message": "this server has no such file or symbol"}}
