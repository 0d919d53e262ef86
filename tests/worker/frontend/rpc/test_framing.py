"""The frames that gRPC writes into HTTP/2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import MalformedRequest, Overloaded, TooLarge
from clipper.worker.frontend.budget import Budget
from clipper.worker.frontend.rpc.framing import Message, MessageReader, percent_encoded, prefix_of, seconds_of

MOST = 1000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4m", 0.004), (b"5u", 5e-6), (b"6n", 6e-9), (b"99999999S", 99_999_999)],
)
def test_timeout(text: bytes, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", [b"", b"1", b"S", b"-1S", b"1.5S", b"123456789S", b"1 S", b"1s", b"1S\n", b"\xd9\xa1S"]
)
def test_timeout_that_is_not_valid(text: bytes) -> None:
    with pytest.raises(MalformedRequest, match="grpc-timeout"):
        seconds_of(text)


@given(st.text())
def test_percent_encoding(text: str) -> None:
    encoded = percent_encoded(text)
    assert all(0x20 <= byte < 0x7F for byte in encoded)
    decoded, at = bytearray(), 0
    while at < len(encoded):
        if encoded[at] == ord("%"):
            decoded.append(int(encoded[at + 1 : at + 3], 16))
            at += 3
        else:
            decoded.append(encoded[at])
            at += 1
    assert decoded.decode() == text.encode("utf-8", "replace").decode()


@given(st.lists(st.tuples(st.binary(max_size=50), st.booleans()), max_size=10), st.data())
def test_messages_in_any_pieces(messages: list[tuple[bytes, bool]], pieces: st.DataObject) -> None:
    budget = Budget()
    reader = MessageReader(budget)
    data = b"".join(bytes((is_compressed,)) + prefix_of(len(text))[1:] + text for text, is_compressed in messages)
    found: list[Message] = []
    while data:
        size = pieces.draw(st.integers(1, len(data)))
        found += reader.add(data[:size], MOST)
        data = data[size:]
    assert [(each.data, each.is_compressed) for each in found] == messages
    assert not reader.is_within_message and budget.held_bytes == 0


def test_an_incomplete_message_counts() -> None:
    budget = Budget(bound_bytes=100)
    reader = MessageReader(budget)
    assert not reader.add(prefix_of(500), MOST)
    assert not reader.add(bytes(90), MOST)
    assert budget.held_bytes == 95 and reader.is_within_message
    with pytest.raises(Overloaded):
        reader.add(bytes(90), MOST)
    reader.drop()
    assert budget.held_bytes == 0


@pytest.mark.parametrize("before", [b"", prefix_of(3) + b"abc"])
def test_prefix_that_is_not_valid(before: bytes) -> None:
    reader = MessageReader(Budget())
    with pytest.raises(TooLarge, match="1001"):
        reader.add(before + prefix_of(MOST + 1), MOST)
    with pytest.raises(MalformedRequest, match="byte 2"):
        MessageReader(Budget()).add(before + b"\2\0\0\0\0", MOST)
