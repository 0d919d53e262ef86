"""Blocks of records."""

import zlib

import msgspec
import pytest

from clipper.learning.decisions.records import BLOCK_HEAD, Damaged, decode_block, split
from tests.learning.decisions.log_files import SETTING, block_of, decision, judgement


def payload_of(block: bytearray) -> tuple[bytes, int]:
    size_bytes, checksum = BLOCK_HEAD.unpack_from(block)
    payload = bytes(block[BLOCK_HEAD.size :])
    assert len(payload) == size_bytes
    return payload, checksum


def test_what_is_written_is_read_with_its_setting() -> None:
    given = decision(3, context="ü", beliefs=((1.5, 2.0), (3.0, 4.0)), outputs=(None,), reason="timeout")
    feedback = judgement(2**53 - 1, losses=None, loss="absolute", loss_parameters={"range": 2.0})
    payload, checksum = payload_of(block_of(SETTING, given, feedback))
    assert list(split(decode_block(payload, checksum))) == [(SETTING, given), feedback]


def test_each_byte_that_is_changed_is_noticed() -> None:
    payload, checksum = payload_of(block_of(SETTING, decision(1)))
    for place in range(len(payload)):
        changed = bytearray(payload)
        changed[place] ^= 0x40
        with pytest.raises(Damaged, match="checksum"):
            decode_block(bytes(changed), checksum)


def test_a_block_of_anything_else_is_damaged_however_right_its_checksum() -> None:
    other, checksum = payload_of(block_of(SETTING))
    assert decode_block(other, checksum) == [SETTING]
    for text in (b"", b"\xc0", b"\x91" * 100_000, b"\x91\x92\x07\x01", b"\xdd\xff\xff\xff\xff"):
        with pytest.raises(Damaged, match="cannot be read"):
            decode_block(text, zlib.crc32(text))


def test_a_decision_without_its_setting_is_damaged() -> None:
    payload, checksum = payload_of(block_of(SETTING, decision(1, setting=1)))
    with pytest.raises(Damaged, match="setting 1 of 1"):
        list(split(decode_block(payload, checksum)))


def test_records_of_an_older_writer_are_read_by_defaults() -> None:
    # As msgpack arrays that end early: what was added since has its default.
    old = msgspec.msgpack.encode([[1, 0, 7, 1.0, 0.5, ["a"], [1.0], [b"1"], None, 1.0, None, None]])
    assert decode_block(old, zlib.crc32(old)) == [decision(7, time_s=1.0, latency_s=0.5, shares=(1.0,))]
