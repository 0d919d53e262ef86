"""The reflection service: which services and messages there are, for tools that know none of them."""

from collections.abc import Mapping

from clipper.worker.frontend.rpc.descriptors import describe
from clipper.worker.frontend.rpc.protocols import ALL, REFLECTION
from clipper.worker.frontend.rpc.wire import Values, decode, encode

_REQUEST, _RESPONSE = (REFLECTION.message(f"ServerReflection{kind}") for kind in ("Request", "Response"))
_NOT_FOUND = 5
_BY_NAME = {file.name: describe(file) for file in ALL}


def _by_symbol() -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    for file in ALL:
        symbols = [*file.types(), *(service.name for service in file.services)]
        symbols += [f"{each.name}.{method}" for each in file.services for method in each.methods]
        found |= dict.fromkeys(symbols, _BY_NAME[file.name])
    return found


_BY_SYMBOL = _by_symbol()


def reflect(message: bytes) -> bytes:
    """Return the answer to one request. Raises MalformedRequest if it is not a message."""
    asked = decode(_REQUEST, memoryview(message))
    return encode(_RESPONSE, {"valid_host": asked.get("host"), "original_request": asked, **_answer(asked)})


def _answer(asked: Values) -> Values:
    if "list_services" in asked:
        services = [{"name": service.name} for file in ALL for service in file.services]
        return {"list_services_response": {"service": services}}
    for by, known in (("file_by_filename", _BY_NAME), ("file_containing_symbol", _BY_SYMBOL)):
        if by in asked and asked[by] in known:
            return {"file_descriptor_response": {"file_descriptor_proto": [known[asked[by]]]}}
    return {"error_response": {"error_code": _NOT_FOUND, "error_message": "nothing here is called so"}}
