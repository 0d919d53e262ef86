import json
from typing import Any

import msgspec
import pytest

from clipper.errors import WrongInput
from clipper.values.records import parse_type
from clipper.worker.frontend.inference.plans import MAX_PLANS, KnownPlans
from clipper.worker.frontend.inference.requests import RequestReader

READER = RequestReader(parse_type("name: string, age: float64, job: string?"))


def described(name: str, datatype: str, size: int, rows: int = 2, **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [rows], "parameters": {"binary_data_size": size, **more}}


def head(name_bytes: int, job_bytes: int, age_bytes: int = 16, **more: Any) -> bytes:
    tensors = [
        described("name", "BYTES", name_bytes, **more),
        described("age", "FP64", age_bytes),
        described("job", "BYTES", job_bytes),
    ]
    return json.dumps({"inputs": tensors}).encode()


def test_sizes_of_texts_vary_in_a_plan_that_is_remembered() -> None:
    known = KnownPlans()
    assert known.find(head(10, 20)) is None
    known.remember(head(10, 20), READER.plan(head(10, 20)))
    for sizes in ((10, 20), (8, 0), (0, 12345678)):
        found, read = known.find(head(*sizes)), READER.plan(head(*sizes))
        assert found is not None and found.sizes == read.sizes == (sizes[0], 16, sizes[1])
        assert msgspec.structs.replace(found, order=read.order) == read
    assert known.find(head(10, 20).replace(b": ", b":")) is None  # other JSON
    assert len(known) == 1


def test_the_size_of_numbers_does_not_vary() -> None:
    known = KnownPlans()
    known.remember(head(10, 20), READER.plan(head(10, 20)))
    assert known.find(head(10, 20, 24)) is None
    with pytest.raises(WrongInput, match="binary_data_size 24: expected 16"):
        READER.plan(head(10, 20, 24))


@pytest.mark.parametrize("key", ['x"binary_data_size', "binary_data_size"])
def test_json_with_other_sizes_in_it_is_not_remembered(key: str) -> None:
    known = KnownPlans()
    text = head(10, 20, more=1).replace(b'"more"', json.dumps(key).encode())
    known.remember(text, READER.plan(text))
    assert len(known) == 0 and known.find(text) is None


@pytest.mark.parametrize("size", ["-1", "1.5", "1e1", "010", "null", "99999999999"])
def test_other_numbers_are_no_sizes(size: str) -> None:
    known = KnownPlans()
    known.remember(head(10, 20), READER.plan(head(10, 20)))
    assert known.find(head(10, 20).replace(b"20", size.encode())) is None


def test_requests_of_many_forms_are_forgotten() -> None:
    known = KnownPlans()
    for rows in range(1, 3 * MAX_PLANS):
        one = json.dumps({"inputs": [described("name", "BYTES", 9, rows), described("age", "FP64", 8 * rows, rows)]})
        known.remember(one.encode(), READER.plan(one.encode()))
    assert 0 < len(known) <= MAX_PLANS
