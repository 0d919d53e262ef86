"""Frames at random, as a caller that is broken or hostile would send them."""

import socket
import struct
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.model.protocol.frames import HEADER_BYTES, PROTOCOL_VERSION, Kind, header
from tests.sdk.programs import ROOT, running

VECTOR = (ROOT / "proto" / "vectors" / "predict_columns.txt").read_text().partition("frame:")[2]
COLUMNS = bytes.fromhex(VECTOR)[HEADER_BYTES:]
# A batch of records, of which some bytes are others, or with another end.
columns = st.builds(
    lambda changes, end: bytes({**dict(enumerate(COLUMNS)), **changes}.values())[:end],
    st.dictionaries(st.integers(0, len(COLUMNS) - 1), st.integers(0, 255), max_size=4),
    st.just(len(COLUMNS)) | st.integers(0, len(COLUMNS)),
).map(lambda body: header(Kind.PREDICT_COLUMNS, len(body), 1) + body)
frames = columns | st.builds(
    lambda kind, frame_id, body: header(kind, len(body), frame_id) + body,
    st.sampled_from(list(Kind)),
    st.integers(0, 3),
    st.one_of(
        st.just(b""),
        st.binary(max_size=80),
        st.builds(
            lambda rows, row_bytes, dtype, dimensions, rest: (
                struct.pack("<IIBBHI", rows, row_bytes, dtype, dimensions, 0, 0) + rest
            ),
            st.integers(0, 4),
            st.integers(0, 9) | st.just(0xFFFFFFFF),
            st.integers(0, 9),
            st.integers(0, 3) | st.just(255),
            st.binary(max_size=40),
        ),
    ),
)


def fuzz(program: Path, examples: int) -> None:
    """Send garbage on many connections, with another that goes on working. ``program`` answers ``[20.0]`` with 20."""
    with running(program) as container, container.caller(greet=False) as other:
        other.greet(version=PROTOCOL_VERSION)

        @given(st.booleans(), st.lists(frames | st.binary(max_size=60), max_size=5))
        @settings(max_examples=examples, deadline=None)
        def send(greet: bool, sent: list[bytes]) -> None:
            with container.caller(greet=False) as caller:
                if greet:
                    caller.greet(version=PROTOCOL_VERSION)
                # The container may close while this is still being sent.
                with suppress(ConnectionError):
                    caller.socket.sendall(b"".join(sent))
                    caller.socket.shutdown(socket.SHUT_WR)
                with suppress(EOFError):
                    while True:
                        caller.read()
            assert [float(output) for output in other.predict([[20.0]]).outputs] == [20.0]

        send()
        container.process.terminate()
        assert container.wait() == 0, container.log
