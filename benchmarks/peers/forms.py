"""How a row is asked of each peer, and where its answer stands."""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# A list of numbers, or a record by its fields.
Row = Sequence[float] | Mapping[str, float | str | None]


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


def _json(row: Row) -> str:
    if isinstance(row, Mapping):
        return json.dumps(row, separators=(",", ":"))
    return "[" + ",".join(f"{number:.4f}" for number in row) + "]"


def _of_input(headers: Mapping[str, str]) -> Callable[[Row], tuple[Mapping[str, str], bytes]]:
    return lambda row: (headers, f'{{"input":{_json(row)}}}'.encode())


def _of_rows(row: Row) -> tuple[Mapping[str, str], bytes]:
    return _JSON, f'{{"rows":[{_json(row)}]}}'.encode()


def _v2(row: Row) -> tuple[Mapping[str, str], bytes]:
    if isinstance(row, Mapping):
        request = {"parameters": {"content_type": "pd"}, "inputs": [_column(*field) for field in row.items()]}
        return _JSON, json.dumps(request, separators=(",", ":")).encode()
    tensor = f'{{"name":"input","shape":[1,{len(row)}],"datatype":"FP64","data":{_json(row)}}}'
    return _JSON, f'{{"inputs":[{tensor}]}}'.encode()


def _column(name: str, value: float | str | None) -> dict[str, object]:
    """One value of a table, as MLServer's codec for DataFrames writes it."""
    if isinstance(value, str):
        return {
            "name": name,
            "shape": [1, 1],
            "datatype": "BYTES",
            "data": [value],
            "parameters": {"content_type": "str"},
        }
    return {"name": name, "shape": [1, 1], "datatype": "FP64", "data": [value]}


def _split(row: Row) -> tuple[Mapping[str, str], bytes]:
    assert isinstance(row, Mapping)
    split = {"columns": list(row), "data": [list(row.values())]}
    return _JSON, json.dumps({"dataframe_split": split}, separators=(",", ":")).encode()


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
# Of MLflow, which takes tables alone.
SPLIT = Form(_split, lambda answer: float(answer["predictions"][0]))
ROWS = Form(_of_rows, lambda answer: float(answer[0]))
V2 = Form(_v2, _first)
V2_BINARY = Form(_v2_binary, _first)
