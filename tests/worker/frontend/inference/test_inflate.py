"""Compressed bodies become whole within their bound, in pieces, and those that lie are refused."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import MalformedRequest, Overloaded, TooLarge, UnsupportedMediaType
from clipper.worker.frontend.budget import Budget
from clipper.worker.frontend.http.heads import Head
from clipper.worker.frontend.inference.framing import Framing, inflate
from tests.worker.frontend.steps import finish

COMPRESS = {b"gzip": gzip.compress, b"deflate": zlib.compress}


@given(st.binary(max_size=200) | st.sampled_from([bytes(300_000), b"abc" * 50_000]), st.sampled_from(list(COMPRESS)))
def test_bodies_come_back_as_they_were(body: bytes, encoding: bytes) -> None:
    budget = Budget()
    whole = finish(inflate(COMPRESS[encoding](body), encoding, 1 << 20, budget))
    assert bytes(whole) == body and isinstance(whole, bytearray) == (len(body) > 32 * 1024)
    assert budget.held_bytes == 0


@pytest.mark.parametrize("encoding", list(COMPRESS))
def test_a_bomb_is_refused_once_it_is_over_the_bound(encoding: bytes) -> None:
    bomb = COMPRESS[encoding](bytes(50_000_000))
    budget = Budget()
    steps = inflate(bomb, encoding, 1 << 20, budget)
    with pytest.raises(TooLarge, match="over 1048576 bytes"):
        for _ in steps:
            assert budget.held_bytes <= (1 << 20) + (1 << 16)
    assert budget.held_bytes == 0
    with pytest.raises(Overloaded):
        finish(inflate(bomb, encoding, 1 << 30, Budget(bound_bytes=100_000)))


@given(st.data(), st.sampled_from(list(COMPRESS)))
def test_what_is_not_compressed_so_is_refused(data: st.DataObject, encoding: bytes) -> None:
    body = COMPRESS[encoding](b"hello" * 100)
    cut = data.draw(st.integers(0, len(body) - 1))
    for wrong in (body[:cut], body + b"x", body + body):
        with pytest.raises(MalformedRequest):
            finish(inflate(wrong, encoding, 1 << 20, Budget()))


def test_encodings_that_are_not_known() -> None:
    for encoding in (b"gzip", b"x-gzip", b"deflate", b"br", b"gzip, gzip", b"zstd"):
        head = Head()
        head.add(b"Content-Encoding", encoding)
        is_known = encoding in (b"gzip", b"x-gzip", b"deflate")
        assert isinstance(Framing(head).problem, UnsupportedMediaType) != is_known
