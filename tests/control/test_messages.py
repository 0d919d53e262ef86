import struct
from itertools import pairwise
from typing import TypeVar, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.control.messages import (
    MAX_MESSAGE_BYTES,
    AnyCommand,
    AnyReply,
    Applied,
    Apply,
    Command,
    Drain,
    Draining,
    Framer,
    GetRecentInput,
    GetStatistics,
    Observed,
    PolicyDescription,
    RecentInput,
    Statistics,
    decode_command,
    decode_reply,
    encode,
)
from clipper.control.snapshot import ApplicationSnapshot, ModelSnapshot, ReplicaAddress, Snapshot, VersionSnapshot
from clipper.control.statistics import (
    NO_MARK,
    ApplicationStatistics,
    CacheStatistics,
    HistogramData,
    ReplicaStatistics,
    TrialReading,
    VersionStatistics,
    WorkerStatistics,
)
from clipper.errors import ProtocolViolation
from clipper.settings.application import Link, Selection
from clipper.settings.version import Batching
from clipper.values.types import ModelId

R = TypeVar("R")

SNAPSHOT = Snapshot(
    generation=7,
    applications=(
        ApplicationSnapshot("bare", "string", 20.5),
        ApplicationSnapshot(
            "digits", "float64[784]", 20.0, "null", Selection("single"), (Link("digits"), Link("other", "3"))
        ),
    ),
    models=(
        ModelSnapshot("other", None, ()),
        ModelSnapshot(
            "digits",
            "2",
            (
                VersionSnapshot("1", "float64[784]"),
                VersionSnapshot(
                    "2",
                    "float32[3,*,*]",
                    Batching("quantile", 64, 2.5),
                    False,
                    (ReplicaAddress("digits:2#0.g1", "unix:/run/a"), ReplicaAddress("digits:2#1.g9", "tcp:h:1", "é")),
                ),
            ),
        ),
    ),
)
HISTOGRAM = HistogramData((0, 2**40), 0.25)
COUNTS = (0, 1, 2, 3, 4, 5, 6, 7, 8)
ONE = (1.0, 0.0, 0.5)
WORKER = WorkerStatistics(
    index=1,
    pid=2**22,
    generation=7,
    connections=3,
    requests_refused={"not_found": 4},
    applications=(
        ApplicationStatistics("digits", 9, {"timeout": 1}, {"no_replica": 2}, 3, HISTOGRAM, mark=2**60),
        ApplicationStatistics(
            "other", 0, {}, {}, 0, HISTOGRAM, explanations={"timeout": "é"}, trials=(TrialReading(1, 2, ONE, ONE, ""),)
        ),
    ),
    versions=(
        VersionStatistics("digits", "2", *COUNTS, HISTOGRAM, HISTOGRAM, HISTOGRAM),
        VersionStatistics(
            "digits", "1", *COUNTS, HISTOGRAM, HISTOGRAM, HISTOGRAM, 9, 0.02, {"r": 64}, {"r": 400.0}, "boom", 2**60
        ),
    ),
    replicas=(
        ReplicaStatistics("digits:2#0.g1", "digits", "2", "linked", 16, 2, 1000, None),
        ReplicaStatistics("digits:2#1.g9", "digits", "2", "lost", 0, 0, 0, "connection closed"),
    ),
    cache=CacheStatistics(1, 400, 1024, 5),
    demanded=(ModelId("asleep", "1"),),
)


def bodies(stream: bytes, cuts: list[int]) -> list[bytes]:
    framer = Framer()
    ends = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [body for start, end in pairwise(ends) for body in framer.feed(stream[start:end])]


@pytest.mark.parametrize(
    "command",
    [
        Apply(SNAPSHOT),
        Apply(Snapshot()),
        GetStatistics(),
        GetStatistics(("digits", "other"), (ModelId("digits", "2"),), ((NO_MARK, 7), (9,))),
        Drain(),
        GetRecentInput("m"),
    ],
)
def test_commands_survive_the_way(command: AnyCommand) -> None:
    assert [decode_command(body) for body in bodies(encode(command), [])] == [command]


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (Apply(SNAPSHOT), Applied(7, {"digits:2#1.g9": "refused"}, ("digits:1#0.g1",))),
        (GetStatistics(), Statistics(WORKER)),
        (Drain(), Draining()),
        (GetRecentInput("m"), RecentInput("float64[1]", bytes(8))),
        (GetRecentInput("m"), RecentInput()),
    ],
)
def test_replies_survive_the_way(command: Command[R], reply: R) -> None:
    assert [decode_reply(body, command) for body in bodies(encode(reply), [])] == [reply]


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 10_000), max_size=10))
def test_bodies_come_whole_and_in_order_however_they_were_split(sent: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(struct.pack("<I", len(body)) + body for body in sent)
    assert bodies(stream, cuts) == sent


def test_what_was_fed_is_kept_if_nobody_iterates() -> None:
    framer = Framer()
    message = encode(Drain())
    framer.feed(message[:3])
    assert [decode_command(body) for body in framer.feed(message[3:])] == [Drain()]


def test_a_message_over_the_bound_is_refused_at_its_size() -> None:
    with pytest.raises(ProtocolViolation, match=str(MAX_MESSAGE_BYTES)):
        list(Framer().feed(struct.pack("<I", MAX_MESSAGE_BYTES + 1)))
    assert list(Framer().feed(struct.pack("<I", MAX_MESSAGE_BYTES))) == []


@pytest.mark.parametrize("body", [b"", b"\x00", b"\xff" * 9, encode(Draining())[4:]])
def test_what_is_no_command_is_a_violation(body: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="malformed"):
        decode_command(body)


@pytest.mark.parametrize("other", [Drain(), Statistics(WORKER)])
def test_what_is_not_the_reply_to_a_command_is_a_violation(other: Drain | Statistics) -> None:
    with pytest.raises(ProtocolViolation, match="malformed"):
        decode_reply(encode(other)[4:], Drain())


def test_each_command_names_its_reply() -> None:
    """An entry in one union and not in the other would be refused by whoever gets it."""
    assert [command.reply_type() for command in get_args(AnyCommand)] == [
        Applied, Applied, Statistics, Draining, Observed, PolicyDescription, RecentInput,
    ]  # fmt: skip
    assert {command.reply_type() for command in get_args(AnyCommand)} == set(get_args(AnyReply))
