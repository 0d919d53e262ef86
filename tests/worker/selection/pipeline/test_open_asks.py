"""Which asks of models are let in."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import Conflict, Overloaded
from clipper.model.protocol.asks import MAX_OPEN_ASKS
from clipper.worker.selection.pipeline.open_asks import MAX_DEPTH, MAX_HELD_BYTES, OpenAsks

models = st.sampled_from("abcdef")
asks = st.tuples(models, st.frozensets(models, min_size=1, max_size=3))


def longest_to(waits: Mapping[str, frozenset[str]], model: str) -> int:
    """How many asks in a row wait for this model. Does not return if they are in a circle."""
    return max((1 + longest_to(waits, each) for each, of in waits.items() if model in of), default=0)


@given(st.lists(st.tuples(asks, st.booleans()), max_size=30))
def test_what_is_let_in_has_no_circle_and_is_not_deep(asked: list[tuple[tuple[str, frozenset[str]], bool]]) -> None:
    rules = OpenAsks()
    let_in: list[tuple[int, str, frozenset[str]]] = []
    for replica, ((asker, of), ends_one) in enumerate(asked):
        if ends_one and let_in:
            rules.end(*let_in.pop(0), 1)
        waits = {model: frozenset[str]().union(*(each[2] for each in let_in if each[1] == model)) for model in "abcdef"}

        def reaches(model: str, goal: str, waits: Mapping[str, frozenset[str]] = waits) -> bool:
            return model == goal or any(reaches(each, goal) for each in waits[model])

        is_circle, is_deep = any(reaches(model, asker) for model in of), longest_to(waits, asker) >= MAX_DEPTH
        try:
            rules.check(replica, asker, of, 1)
        except Conflict as error:
            assert is_circle if "circle" in str(error) else is_deep
            continue
        assert not is_circle and not is_deep
        rules.begin(replica, asker, of, 1)
        let_in.append((replica, asker, of))
    for each in let_in:
        rules.end(*each, 1)
    assert not rules._waits and not rules._replicas and not rules.held_bytes


def test_circle_is_named() -> None:
    rules = OpenAsks()
    rules.begin(1, "a", {"b"}, 0)
    rules.begin(2, "b", {"c"}, 0)
    with pytest.raises(Conflict, match=r"a, which asks b, which asks c, which asks a$"):
        rules.check(3, "c", {"d", "a"}, 0)
    with pytest.raises(Conflict, match=r"c, which asks c$"):
        rules.check(3, "c", {"c"}, 0)
    rules.end(1, "a", {"b"}, 0)
    rules.check(3, "c", {"d", "a"}, 0)


def test_chain_has_a_bound() -> None:
    rules = OpenAsks()
    for place in range(MAX_DEPTH):
        rules.check(place, f"m{place}", {f"m{place + 1}"}, 0)
        rules.begin(place, f"m{place}", {f"m{place + 1}"}, 0)
    with pytest.raises(Conflict, match="asks in a row wait for m4"):
        rules.check(MAX_DEPTH, f"m{MAX_DEPTH}", {"other"}, 0)
    rules.check(MAX_DEPTH, "beside", {"m1"}, 0)


def test_replica_and_memory_have_bounds() -> None:
    rules = OpenAsks()
    for _ in range(MAX_OPEN_ASKS):
        rules.check(1, "a", {"b"}, 0)
        rules.begin(1, "a", {"b"}, 0)
    with pytest.raises(Overloaded, match="this replica waits for"):
        rules.check(1, "a", {"b"}, 0)
    rules.check(2, "a", {"b"}, MAX_HELD_BYTES)
    with pytest.raises(Overloaded, match="holds 0 bytes"):
        rules.check(2, "a", {"b"}, MAX_HELD_BYTES + 1)
