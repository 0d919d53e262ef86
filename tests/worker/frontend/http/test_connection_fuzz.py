"""One connection without a socket: mutated requests."""

from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.worker.frontend.http.endpoints import live
from clipper.worker.frontend.http.port import Port
from tests.example_counts import share_of
from tests.worker.frontend.fake_transport import Echo, Peer, run
from tests.worker.frontend.http_calls import ECHO, ECHO_CALLS, HELLO, OTHER_CALLS, Call, cut, expected_of
from tests.worker.frontend.mutations import mutated

FRAGMENTS = [b"\r\n", b"\r\n\r\n", b"\n", b"\0", b":", b" ", b"0\r\n\r\n", b"HTTP/1.1", b"Content-Length: 5\r\n"]
FRAGMENTS += [
    b"Transfer-Encoding: chunked\r\n",
    b"Upgrade: x\r\nConnection: upgrade\r\n",
    b"\xff\xfe",
    b"99999999999999999999",
]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "replace", "repeat"]),
        st.integers(0, 1 << 16),
        st.binary(min_size=1, max_size=6) | st.sampled_from(FRAGMENTS),
    ),
    min_size=1,
    max_size=5,
)


# Faults that were put in by hand showed within ten examples or not in 4,000; make fuzz tries others.
@settings(max_examples=share_of(1000), deadline=None)
@given(
    good=st.lists(ECHO_CALLS, max_size=2),
    bad=st.lists(ECHO_CALLS | OTHER_CALLS, min_size=1, max_size=3),
    edits=EDITS,
    places=st.lists(st.integers(0, 1 << 16), max_size=8),
)
def test_mutated_requests_hurt_only_themselves(
    good: list[Call], bad: list[Call], edits: list[tuple[str, int, bytes]], places: list[int]
) -> None:
    garbled = mutated(b"".join(call.data for call in bad), edits)
    expected = expected_of(good)

    async def test(port: Port) -> None:
        peer = Peer(port)
        peer.send(ECHO)
        await peer.send_in_turns(cut(b"".join(call.data for call in good) + garbled, places))
        answers = peer.responses
        assert answers[0].body == HELLO
        assert [(each.status, each.body) for each in answers[1 : len(expected) + 1]] == expected
        assert all(each.status != 500 for each in answers)
        assert all(set(each.json) == {"error", "cause"} for each in answers if each.status >= 400)
        peer.connection.eof_received()
        peer.leave()
        after = Peer(port)
        after.send(ECHO)
        assert [response.body for response in after.responses] == [HELLO]
        assert (len(port.members), port.budget.held_bytes) == (1, 0)

    run(test, {b"/echo/predict": Echo(), b"/health/live": live()})
