"""How a row is asked of each peer, and where its answer stands."""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Sequence[float]


@dataclass(frozen=True, slots=True)
class Form:
    """One way to ask.

    Attributes:
        write: from a row to the request's own headers and its body.
        read: from the decoded answer to its number.
    """

    write: Callable[[Row], tuple[Mapping[str, str], bytes]]
    read: Callable[[Any], float]

    def request(self, path: str, row: Row) -> bytes:
        """The whole request, for a connection that stays."""
        headers, body = self.write(row)
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body


_JSON = {"Content-Type": "application/json"}
# A server that does not know it to be JSON leaves it to the application to read.
_BYTES = {"Content-Type": "application/octet-stream"}


def _numbers(row: Row) -> str:
    return "[" + ",".join(f"{number:.4f}" for number in row) + "]"


def _of_input(headers: Mapping[str, str]) -> Callable[[Row], tuple[Mapping[str, str], bytes]]:
    return lambda row: (headers, f'{{"input":{_numbers(row)}}}'.encode())


def _of_rows(row: Row) -> tuple[Mapping[str, str], bytes]:
    return _JSON, f'{{"rows":[{_numbers(row)}]}}'.encode()


def _v2(row: Row) -> tuple[Mapping[str, str], bytes]:
    tensor = f'{{"name":"input","shape":[1,{len(row)}],"datatype":"FP64","data":{_numbers(row)}}}'
    return _JSON, f'{{"inputs":[{tensor}]}}'.encode()


def _v2_binary(row: Row) -> tuple[Mapping[str, str], bytes]:
    raw = struct.pack(f"<{len(row)}d", *row)
    parameters = {"binary_data_size": len(raw)}
    tensor = {"name": "input", "shape": [1, len(row)], "datatype": "FP64", "parameters": parameters}
    head = json.dumps({"inputs": [tensor]}).encode()
    return {**_BYTES, "Inference-Header-Content-Length": str(len(head))}, head + raw


def _first(answer: Any) -> float:
    return float(answer["outputs"][0]["data"][0])


INPUT = Form(_of_input(_JSON), lambda answer: float(answer["label"]))
BYTES = Form(_of_input(_BYTES), lambda answer: float(answer["label"]))
# Of Clipper and the yardstick.
OUTPUT = Form(_of_input(_JSON), lambda answer: float(answer["output"]))
ROWS = Form(_of_rows, lambda answer: float(answer[0]))
V2 = Form(_v2, _first)
V2_BINARY = Form(_v2_binary, _first)
