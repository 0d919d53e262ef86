"""How large a body an application takes."""

import pytest

from clipper.frontend import limits
from clipper.frontend.endpoints import most_body_bytes
from clipper.types import InputType
from serving import application, serving


@pytest.mark.parametrize(
    ("input_type", "expected"),
    [
        ("float64[784]", 1000_000),
        ("string", 1000_000),
        ("float64[*]", 1000_000),
        ("float32[3,224,224]", 3 * 224 * 224 * limits.BODY_BYTES_PER_NUMBER),
        ("uint8[3,1024,1024]", limits.MAX_TYPED_BODY_BYTES),
        ("float64[999999999]", limits.MAX_TYPED_BODY_BYTES),
    ],
)
def test_what_an_input_can_need_may_be_sent(input_type: str, expected: int) -> None:
    assert most_body_bytes(InputType.parse(input_type), 1000_000) == expected


def test_bound_of_bodies_is_the_workers_or_the_applications() -> None:
    with serving() as system:
        worker = system.start_worker(max_body_bytes=100_000)
        applications = [application("small"), application("large", input_type="float64[20000]")]
        system.apply(applications, [])
        body = b'{"input": [' + b"0.12345," * 19_999 + b"1]}"
        with worker.connect() as client:
            answer = client.ask("/large/predict", body)
            assert (answer.status, answer.json["error"]) == (503, "no_replica")
            answer = client.ask("/small/predict", body)
            assert (answer.status, answer.json["cause"]) == (413, "body is over 100000 bytes")
