from hypothesis import given
from hypothesis import strategies as st

from clipper.worker.frontend.repeats import MAX_BODY_BYTES, MAX_BYTES, MIN_BODY_BYTES, RepeatedBodies


def body(number: int, size: int = 1000) -> bytes:
    return (b'{"input":[%d' % number).ljust(size - 2, b" ") + b"]}"


def test_a_body_is_found_again_and_another_is_not() -> None:
    repeats = RepeatedBodies()
    repeats.remember(body(1), b"row 1")

    assert repeats.find(bytes(bytearray(body(1)))) == b"row 1"
    assert repeats.find(body(2)) is None
    assert repeats.find(body(1) + b" ") is None


@given(st.integers(MIN_BODY_BYTES, 5000), st.data())
def test_one_byte_anywhere_makes_another_body(size: int, data: st.DataObject) -> None:
    """However few of its bytes are sampled, a body is compared whole."""
    repeats = RepeatedBodies()
    original = body(1, size)
    repeats.remember(original, b"row")
    position = data.draw(st.integers(0, size - 1))
    changed = bytearray(original)
    changed[position] ^= 1

    assert repeats.find(bytes(changed)) is None
    assert repeats.find(original) == b"row"


def test_of_bodies_with_one_sample_the_latest_is_kept() -> None:
    repeats = RepeatedBodies()
    first, second = bytearray(body(1)), bytearray(body(1))
    second[1] ^= 1  # between two samples
    repeats.remember(bytes(first), b"first")
    repeats.remember(bytes(second), b"second")

    assert repeats.find(bytes(second)) == b"second"
    assert repeats.find(bytes(first)) is None


def test_bodies_that_are_too_small_or_too_large_are_not_kept() -> None:
    repeats = RepeatedBodies()
    for size in (MIN_BODY_BYTES - 1, MAX_BODY_BYTES + 1):
        repeats.remember(body(1, size), b"row")
        assert repeats.find(body(1, size)) is None


def test_as_many_of_the_latest_are_kept_as_the_bound_has_room_for() -> None:
    """All were dropped at the bound: a worker's memory went up and down by 4 MB for each application."""
    repeats = RepeatedBodies()
    bodies = [b"%05d" % number * 800 for number in range(3 * MAX_BYTES // 8000)]  # their samples differ
    for each in bodies:
        for _ in range(2):
            repeats.remember(each, each)
        assert repeats.find(each) == each

    kept = [repeats.find(each) == each for each in bodies]
    assert kept == sorted(kept) and sum(kept) == MAX_BYTES // 8000
