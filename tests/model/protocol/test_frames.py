import itertools
import tracemalloc
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import ProtocolViolation
from clipper.model.protocol.frames import (
    DROPPED,
    HEADER,
    HEADER_BYTES,
    MAX_BODY_BYTES,
    Kind,
    Splitter,
    header,
)

bodies = st.binary(max_size=200)
frames = st.lists(st.tuples(st.sampled_from(list(Kind)), st.integers(0, 2**64 - 1), bodies), max_size=8)


def joined(parts: list[tuple[Kind, int, bytes]]) -> bytes:
    return b"".join(header(kind, len(body), frame_id) + body for kind, frame_id, body in parts)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    points = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(points)]


@given(frames, st.lists(st.integers(0, 2000), max_size=20))
def test_any_split_of_the_bytes_gives_the_same_frames(parts: list[tuple[Kind, int, bytes]], cuts: list[int]) -> None:
    splitter = Splitter()
    # Bodies are compared at the end: those that were taken must not change when more is fed.
    taken = [frame for piece in pieces(joined(parts), cuts) for frame in splitter.feed(piece)]
    assert [(kind, frame_id, bytes(body)) for kind, frame_id, body in taken] == parts


@given(frames, st.lists(st.integers(0, 2000), max_size=20), st.randoms(use_true_random=False))
def test_frames_that_were_not_taken_stay(parts: list[tuple[Kind, int, bytes]], cuts: list[int], random: Random) -> None:
    splitter = Splitter()
    taken: list[tuple[int, int, memoryview]] = []
    for piece in pieces(joined(parts), cuts):
        splitter.feed(piece)
        taken += itertools.islice(splitter, random.randint(0, 2))
    taken += splitter
    assert [(kind, frame_id, bytes(body)) for kind, frame_id, body in taken] == parts


@given(frames, st.lists(st.integers(1, 300), min_size=1, max_size=30), st.integers(0, 210))
def test_large_bodies_come_whole_into_memory_of_their_size(
    parts: list[tuple[Kind, int, bytes]], reads: list[int], least_bytes: int
) -> None:
    stream, splitter, made, taken = joined(parts), Splitter(), [], []

    def make(size: int) -> memoryview:
        made.append(size)
        return memoryview(bytearray(size))

    at = 0
    for read in itertools.cycle(reads):
        if at == len(stream):
            break
        room = splitter.room(least_bytes, make)
        if room is None:
            splitter.feed(stream[at : at + read])
            at += read
        else:
            size = min(read, len(room), len(stream) - at)
            room[:size] = stream[at : at + size]
            splitter.fill(size)
            at += size
        at = min(at, len(stream))
        taken += splitter
    assert [(kind, frame_id, bytes(body)) for kind, frame_id, body in taken] == parts
    assert all(size >= least_bytes for size in made)


def test_a_body_has_room_from_the_least_size_on() -> None:
    asked: list[int] = []

    def make(size: int) -> memoryview:
        asked.append(size)
        return memoryview(bytearray(size))

    below = Splitter().feed(header(Kind.PREDICT, 99, 1))
    assert below.room(100, make) is None
    at_least = Splitter().feed(header(Kind.PREDICT, 100, 1) + b"ab")
    room = at_least.room(100, make)
    assert room is not None
    assert len(room) == 98
    assert at_least.take() is None
    whole = Splitter().feed(header(Kind.PREDICT, 100, 1) + bytes(100))
    assert whole.room(100, make) is None
    assert asked == [100]


def test_a_body_over_a_bound_has_no_room() -> None:
    splitter = Splitter(1000)
    with pytest.raises(ProtocolViolation, match="at most 1000"):
        splitter.feed(header(Kind.PREDICT, 1001)).room(10, lambda size: memoryview(bytearray(size)))
    dropped = Splitter().feed(header(Kind.RESULTS, 1001))
    dropped.most_kept_bytes = 1000
    assert dropped.room(10, lambda size: memoryview(bytearray(size))) is None
    assert dropped.take()[2] is DROPPED


@given(st.lists(st.binary(max_size=64), max_size=10))
def test_garbage_only_ever_raises_protocol_violation(reads: list[bytes]) -> None:
    splitter = Splitter()
    try:
        for data in reads:
            for kind, _, _ in splitter.feed(data):
                assert kind in list(Kind)
    except ProtocolViolation:
        # The stream cannot be read on: it stays refused, whatever comes.
        with pytest.raises(ProtocolViolation):
            list(splitter.feed(joined([(Kind.PING, 1, b"")])))


def test_frames_before_a_bad_header_are_given() -> None:
    splitter = Splitter().feed(joined([(Kind.PING, 1, b"")]) + b"\xff" * HEADER_BYTES)
    assert splitter.take()[:2] == (Kind.PING, 1)
    with pytest.raises(ProtocolViolation, match="ffffffff"):
        splitter.take()


def test_announced_size_allocates_nothing() -> None:
    splitter = Splitter()
    tracemalloc.start()
    try:
        assert list(splitter.feed(header(Kind.PREDICT, MAX_BODY_BYTES))) == []
        assert list(splitter.feed(b"x")) == []
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("limit", [0, 10])
def test_body_over_the_limit_is_refused(limit: int) -> None:
    assert len(list(Splitter(limit).feed(joined([(Kind.PING, 1, b"x" * limit)])))) == 1
    with pytest.raises(ProtocolViolation, match=f"at most {limit}"):
        list(Splitter(limit).feed(header(Kind.PING, limit + 1)))


def test_limit_may_change_between_frames() -> None:
    splitter = Splitter(4).feed(joined([(Kind.HELLO, 0, b"1234"), (Kind.PREDICT, 1, b"12345")]))
    assert splitter.take()[0] == Kind.HELLO
    splitter.max_body_bytes = 5
    assert bytes(splitter.take()[2]) == b"12345"


def test_header_layout() -> None:
    assert header(Kind.PONG, 8, 0x0102) == bytes.fromhex("08000000 07 00 0000 0201000000000000")
    assert HEADER.size == HEADER_BYTES


def test_small_bodies_are_copied_and_large_ones_are_not() -> None:
    small, large = Splitter().feed(joined([(Kind.ERROR, 1, bytes(4096)), (Kind.ERROR, 2, bytes(4097))]))
    assert type(small[2]) is bytes
    assert type(large[2]) is memoryview


@pytest.mark.parametrize("place", [5, 6])
def test_flags_and_reserved_bytes_are_refused(place: int) -> None:
    frame = bytearray(header(Kind.PING, 0, 1))
    frame[place] = 1
    with pytest.raises(ProtocolViolation, match="is not of protocol"):
        Splitter().feed(bytes(frame)).take()


def test_a_body_that_nobody_holds_is_not_held_by_the_splitter() -> None:
    frame = joined([(Kind.PREDICT, 1, bytes(1_000_000))])
    splitter = Splitter()
    tracemalloc.start()
    try:
        assert splitter.feed(bytes(bytearray(frame))).take() is not None
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()


def test_bodies_that_were_taken_stay_while_the_next_come_in_pieces() -> None:
    bodies = [digit * 5000 for digit in (b"1", b"2", b"3", b"4")]
    data = joined([(Kind.PREDICT, number, body) for number, body in enumerate(bodies)])
    splitter, taken = Splitter(), []
    for start in range(0, len(data), 300):
        taken += splitter.feed(data[start : start + 300])
    assert [bytes(body) for _, _, body in taken] == bodies


@pytest.mark.parametrize("piece", [1, 3, 16, 17, 50, 1000])
def test_what_is_too_large_to_keep_is_dropped_as_it_comes(piece: int) -> None:
    stream = joined([(Kind.PONG, 1, b"12345678"), (Kind.RESULTS, 2, bytes(100)), (Kind.PONG, 3, b"87654321")])
    splitter = Splitter()
    splitter.most_kept_bytes = 50
    found = [each for at in range(0, len(stream), piece) for each in splitter.feed(stream[at : at + piece])]
    assert [(kind, number, bytes(body)) for kind, number, body in found] == [
        (Kind.PONG, 1, b"12345678"),
        (Kind.RESULTS, 2, b""),
        (Kind.PONG, 3, b"87654321"),
    ]
    assert found[1][2] is DROPPED
