"""Rows on inputs that are sent as they are in memory: the worker's processor time for a query, beside the same as JSON.

The rows of a form take turns, and ask without the cache, so that a few requests are enough.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.harness import servers, wrk
from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.workbench import HERE, TURN_S, TURNS, WARM_UP_S, Workbench, median_ratio

CONNECTIONS = 32
# So long that no query is answered with the default, which costs less, however busy the machine is.
SLO_MS = 200
REQUESTS = HERE / "peers" / "requests.lua"
_DIFFERENT = 32
BINARY = "binary"


def request(path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A whole request as ``requests.lua`` reads it: its length, a newline, its bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    whole = "\r\n".join([*lines, "", ""]).encode() + body
    return b"%d\n%b" % (len(whole), whole)


def in_json(application: str, value: object) -> bytes:
    body = json.dumps({"input": value}, separators=(",", ":")).encode()
    return request(f"/{application}/predict", {"Content-Type": "application/json"}, body)


def in_bytes(application: str, datatype: str, row: bytes, size: int) -> bytes:
    parameters = {"binary_data_size": len(row)}
    tensor = {"name": "input", "shape": [1, size], "datatype": datatype, "parameters": parameters}
    return binary_request(application, [tensor], row)


def binary_request(application: str, tensors: Sequence[object], data: bytes) -> bytes:
    head = json.dumps({"inputs": tensors}, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return request(f"/v2/models/{application}/infer", headers, head + data)


def numbers() -> dict[str, list[bytes]]:
    """The forms of 784 float32, each with its requests."""
    rows = np.random.default_rng(5).random((_DIFFERENT, 784), np.float32)
    return {
        BINARY: [in_bytes("numbers", "FP32", row.tobytes(), 784) for row in rows],
        "JSON": [in_json("numbers", [round(float(each), 4) for each in row]) for row in rows],
    }


def pictures() -> dict[str, list[bytes]]:
    """The forms of a picture of 224 × 224 pixels in three colours: 150,528 bytes."""
    rows = np.random.default_rng(5).integers(0, 256, (_DIFFERENT, 224 * 224 * 3), np.uint8)
    return {
        BINARY: [in_bytes("picture", "UINT8", row.tobytes(), row.size) for row in rows],
        "base64": [in_json("picture", base64.b64encode(row.tobytes()).decode()) for row in rows],
        "JSON": [in_json("picture", row.tolist()) for row in rows],
    }


def over_binary(
    application: str, input_type: str, forms: Callable[[], dict[str, list[bytes]]], least: Mapping[str, float]
) -> Callable[[Workbench], Outcome]:
    """``least``: how many times the processor time of a query in bytes one in another form has to take."""

    def measure(bench: Workbench) -> Outcome:
        files = {}
        for form, requests in forms().items():
            files[form] = bench.folder / f"{application}-{form}"
            files[form].write_bytes(b"".join(requests))
        with servers.clipper() as server:
            server.deploy(application, "total:total", "--input-type", input_type, "--no-cache", slo_ms=SLO_MS)
            for file in files.values():
                ask(server, file, WARM_UP_S)
            rounds = [{form: ask(server, file, TURN_S) for form, file in files.items()} for _ in range(TURNS)]
        taken_us = {form: [each[form][0] for each in rounds] for form in files}
        per_s = {form: median(each[form][1] for each in rounds) for form in files}
        ratios = {form: median_ratio(taken_us[form], taken_us[BINARY]) for form in least}
        value = f"{median(taken_us[BINARY]):.0f} µs, {per_s[BINARY]:,.0f}/s; " + ", ".join(
            f"{form} {ratio:.1f} × of it, {per_s[form]:,.0f}/s" for form, ratio in ratios.items()
        )
        is_met = all(ratios[form] >= floor for form, floor in least.items())
        return Outcome(value, is_met, {"worker_us": taken_us, "per_s": per_s, "ratios": ratios})

    return measure


def ask(
    server: servers.ClipperServer, requests: Path, seconds: int, connections: int = CONNECTIONS
) -> tuple[float, float]:
    """The worker's processor time for an answer of the model in µs, and such answers a second."""
    worker = server.process_ids()[1]
    before_ns = servers.processor_ns(worker)
    load = wrk.run(server.query_url, REQUESTS, connections=connections, seconds=seconds, bodies=requests)
    answered = load.requests - load.defaults - load.failed
    return (servers.processor_ns(worker) - before_ns) / answered / 1e3, answered / load.requests * load.requests_per_s


ROWS = [
    Row(
        "binary_784",
        "worker's processor time for 784 float32 as JSON, over as a binary tensor",
        "≥ 1.3 ×",
        over_binary("numbers", "float32[784]", numbers, {"JSON": 1.3}),
    ),
    Row(
        "binary_picture",
        "the same for a picture of 150,528 bytes, as base64 in JSON and as numbers in JSON",
        "≥ 1.3 ×, ≥ 5 ×",
        over_binary("picture", "uint8[150528]", pictures, {"base64": 1.3, "JSON": 5.0}),
    ),
]
