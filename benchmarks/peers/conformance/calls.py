"""The calls of ``calls.json``, by which servers of the Open Inference Protocol are compared, and what answers show."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

PATH = Path(__file__).with_name("calls.json")
_LENGTH = "Inference-Header-Content-Length"


class Call(Struct, frozen=True):
    """
    Attributes:
        json: the body, or what is before the tensors; ``{output}`` in it stands for the name of the model's output.
        text: the body as it is, in place of JSON.
        tensors: float64 that follow as bytes.
        differs: why servers answer differently; empty if they must not.
    """

    name: str
    method: str
    path: str
    headers: dict[str, str] = {}
    json: Any | UnsetType = UNSET
    text: str = ""
    tensors: list[float | str] | None = None
    differs: str = ""

    def request(self, output: str) -> tuple[dict[str, str], bytes]:
        """The headers and the body. ``output``: the name of the model's output."""
        text = self.text.encode()
        if not isinstance(self.json, UnsetType):
            text = json.dumps(self.json).replace("{output}", output).encode()
        headers = {"Content-Type": "application/json", **self.headers}
        if self.headers.get("Content-Encoding") == "gzip":
            return headers, gzip.compress(text)
        if self.tensors is None:
            return headers, text
        headers = {"Content-Type": "application/octet-stream", _LENGTH: str(len(text)), **self.headers}
        return headers, text + struct.pack(f"<{len(self.tensors)}d", *map(float, self.tensors))


def read_calls() -> list[Call]:
    return msgspec.json.decode(PATH.read_bytes(), type=list[Call])


def shown(status: int, headers: dict[str, str], body: bytes) -> str:
    """An answer's status, and the datatype and shape of its first tensor, e.g. ``200 FP64 [1]``.

    Args:
        headers: by names in lower case.
    """
    size = headers.get(_LENGTH.lower(), "")
    try:
        answer = json.loads(body[: int(size)] if size.isdigit() else body)
    except ValueError:
        return str(status)
    tensors = answer.get("outputs") or answer.get("inputs") if isinstance(answer, dict) else None
    match tensors:
        case [{"datatype": datatype, "shape": list(shape)}, *_]:
            return f"{status} {datatype} [{','.join(map(str, shape))}]"
    return str(status)
