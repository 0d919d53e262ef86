"""Decision logs on disk that a test has written, and a record of each kind."""

from pathlib import Path
from typing import Any

from clipper.learning.decisions.records import (
    Decision,
    Judgement,
    Record,
    Setting,
    begin_block,
    end_block,
    extend_block,
)
from clipper.learning.decisions.segments import SegmentWriter
from clipper.settings.server import LEAST_LOG_BYTES

SETTING = Setting("app", "exp3", ("a", "b"), ("1", "2"), b'"default"')


def decision(query_id: int, **fields: Any) -> Decision:
    given: dict[str, Any] = {
        "setting": 0,
        "query_id": query_id,
        "time_s": 1000.0 + query_id,
        "latency_s": 0.002,
        "models": ("a",),
        "shares": (0.5,),
        "outputs": (b"1",),
        "answer": None,
        "confidence": 1.0,
        "reason": None,
        "context": None,
    }
    return Decision(**given | fields)


def judgement(query_id: int, **fields: Any) -> Judgement:
    given: dict[str, Any] = {
        "application": "app",
        "query_id": query_id,
        "time_s": 5000.0,
        "label": b"1",
        "reward": None,
        "losses": {"a": 0.0},
        "answer_loss": 0.0,
    }
    return Judgement(**given | fields)


def block_of(*records: Record) -> bytearray:
    block = begin_block()
    extend_block(block, records)
    end_block(block, len(records))
    return block


def write_log(folder: Path, *blocks: bytes | bytearray, writer: str = "w1") -> Path:
    """A segment of these blocks; returns its path."""
    segment = SegmentWriter(folder, writer, LEAST_LOG_BYTES)
    for block in blocks:
        segment.write(block)
    segment.close()
    return max(folder.iterdir(), key=lambda path: path.name)
