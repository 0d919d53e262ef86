"""Rows on records: the worker's processor time for 30 fields, over that for a list of 30 numbers in as many bytes.

A record has 20 numbers, 8 categories and 2 texts. All forms take turns on one server, and ask without the cache.
"""

import json
import random
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from benchmarks.harness import servers
from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.workbench import TURN_S, TURNS, WARM_UP_S, Workbench, median_ratio
from benchmarks.rows.binary_query import CONNECTIONS, SLO_MS, ask, binary_request, in_json, request

NUMBERS, WORDS, TEXTS = [f"n{place}" for place in range(20)], [f"c{place}" for place in range(8)], ["t0", "t1"]
KNOWN = ("alpha", "beta", "gamma", "delta")
RECORD = ", ".join(
    [f"{name}: float64" for name in NUMBERS]
    + [f"{name}: string{{{','.join(map(json.dumps, KNOWN))}}}" for name in WORDS]
    + [f"{name}: string?" for name in TEXTS]
)
LIST, OBJECTS, COLUMNS, SPLIT, TENSORS = "lists", "objects", "columns", "pandas split", "tensors"
_DIFFERENT = 256
_BATCH = 32
MOST = 1.5


def record(chance: random.Random) -> dict[str, Any]:
    values: dict[str, Any] = {name: round(chance.random() * 100, 4) for name in NUMBERS}
    values |= {name: chance.choice(KNOWN) for name in WORDS}
    return values | {"t0": f"some text here {chance.randrange(1000)}", "t1": "more"}


def numbers_of(size: int, chance: random.Random) -> list[float]:
    """30 numbers between 0 and 1 whose JSON, a list without spaces, has ``size`` bytes."""
    each, longer = divmod(size - 31, 30)
    digits = [each - 2 + (place < longer) for place in range(30)]  # behind "0."
    # Neither the first digit nor the last is 0, so that JSON writes all of them.
    return [(chance.randrange(10 ** (count - 1), 10**count) // 10 * 10 + 5) / 10**count for count in digits]


def record_30(bench: Workbench) -> Outcome:
    chance = random.Random(5)
    records = [record(chance) for _ in range(_DIFFERENT)]
    lists = [numbers_of(len(json.dumps(each, separators=(",", ":"))), chance) for each in records]
    forms = {
        LIST: [in_json("numbers", each) for each in lists],
        OBJECTS: [in_json("record", each) for each in records],
    }
    measured = {number: _worker_us(bench, forms, number) for number in (CONNECTIONS, 1)}
    ratios = {number: median_ratio(taken[OBJECTS], taken[LIST]) for number, taken in measured.items()}
    value = "; ".join(
        f"{number} connections: {median(taken[OBJECTS]):.1f} over {median(taken[LIST]):.1f} µs, {ratios[number]:.2f} ×"
        for number, taken in measured.items()
    )
    return Outcome(value, max(ratios.values()) <= MOST, {"worker_us": measured, "ratios": ratios})


def record_30_batch(bench: Workbench) -> Outcome:
    chance = random.Random(5)
    batches = [[record(chance) for _ in range(_BATCH)] for _ in range(_DIFFERENT // _BATCH)]
    size = len(json.dumps(batches[0][0], separators=(",", ":")))
    forms = {
        LIST: [_batch("numbers", "input_batch", [numbers_of(size, chance) for _ in batch]) for batch in batches],
        OBJECTS: [_batch("record", "input_batch", batch) for batch in batches],
        COLUMNS: [_batch("record", "input_columns", _columns(batch)) for batch in batches],
        SPLIT: [_split(batch) for batch in batches],
        TENSORS: [_tensors(_columns(batch)) for batch in batches],
    }
    taken = {form: [us / _BATCH for us in each] for form, each in _worker_us(bench, forms, CONNECTIONS).items()}
    over = {form: median_ratio(taken[form], taken[OBJECTS]) for form in (LIST, COLUMNS, SPLIT, TENSORS)}
    value = f"{median(taken[OBJECTS]):.1f} µs; " + ", ".join(f"{form} {ratio:.2f} ×" for form, ratio in over.items())
    return Outcome(value, max(over[COLUMNS], over[SPLIT], over[TENSORS]) <= 1, {"worker_us": taken, "ratios": over})


def _columns(batch: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [each[name] for each in batch] for name in batch[0]}


def _batch(application: str, kind: str, values: object) -> bytes:
    body = json.dumps({kind: values}, separators=(",", ":")).encode()
    return request(f"/{application}/predict", {"Content-Type": "application/json"}, body)


def _split(batch: Sequence[Mapping[str, Any]]) -> bytes:
    """The records as MLflow's clients send a DataFrame."""
    frame = {"columns": list(batch[0]), "data": [list(each.values()) for each in batch]}
    body = json.dumps({"dataframe_split": frame}, separators=(",", ":")).encode()
    return request("/record/invocations", {"Content-Type": "application/json"}, body)


def _tensors(columns: Mapping[str, list[Any]]) -> bytes:
    """The columns as binary tensors of the Open Inference Protocol."""
    inputs, parts = [], []
    for name, values in columns.items():
        if isinstance(values[0], str):
            texts = [value.encode() for value in values]
            parts.append(b"".join(len(text).to_bytes(4, "little") + text for text in texts))
        else:
            parts.append(np.array(values, "<f8").tobytes())
        datatype = "BYTES" if isinstance(values[0], str) else "FP64"
        parameters = {"binary_data_size": len(parts[-1])}
        inputs.append({"name": name, "shape": [len(values)], "datatype": datatype, "parameters": parameters})
    return binary_request("record", inputs, b"".join(parts))


def _worker_us(bench: Workbench, forms: Mapping[str, Sequence[bytes]], connections: int) -> dict[str, list[float]]:
    """The worker's processor time for a request of each form, in each round."""
    files = {form: bench.folder / f"record-{form}" for form in forms}
    for form, requests in forms.items():
        files[form].write_bytes(b"".join(requests))
    with servers.clipper() as server:
        server.deploy("numbers", "total:total", "--input-type", "float64[30]", "--no-cache", slo_ms=SLO_MS)
        server.deploy("record", "first:first", "--input-type", RECORD, "--no-cache", slo_ms=SLO_MS)
        for file in files.values():
            ask(server, file, WARM_UP_S, connections)
        rounds = [
            {form: ask(server, file, TURN_S, connections)[0] for form, file in files.items()} for _ in range(TURNS)
        ]
    return {form: [each[form] for each in rounds] for form in files}


ROWS = [
    Row(
        "record_30",
        "worker's processor time for a record of 30 fields in JSON, over 30 numbers in as many bytes",
        f"≤ {MOST} ×",
        record_30,
    ),
    Row(
        "record_30_batch",
        "worker's processor time for one of 32 records: lists, columns, pandas' split, binary tensors, over objects",
        "columns, split and tensors ≤ 1 ×",
        record_30_batch,
    ),
]
