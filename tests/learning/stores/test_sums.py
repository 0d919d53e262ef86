"""Numbers and arrays of both stores, on real servers."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.learning.stores.sqlite import SqliteStore
from clipper.learning.stores.store import EVERYONE, Amount
from tests.example_counts import share_of
from tests.learning.stores.kept_states import MakeStore, arrays, load, observation, opened, run


def test_increments_add_up(make_store: MakeStore) -> None:
    run(make_store, [observation("a", x=1.0, y=0.5), observation("b", x=2.0)], [observation("c", y=-0.25)])

    assert load(make_store) == {"x": 3.0, "y": 0.25}


def test_a_state_that_was_never_added_to_is_empty(make_store: MakeStore) -> None:
    assert load(make_store) == {}


def test_contexts_are_apart_whatever_they_are_called(make_store: MakeStore) -> None:
    names = ["user/7", "user*", "user?[1]", "üser ☃", "a" * 500, '"', "\\"]
    run(make_store, [observation(name, name, x=float(index)) for index, name in enumerate(names)])

    assert [load(make_store, context=name) for name in names] == [{"x": float(index)} for index in range(len(names))]


def test_a_dropped_application_leaves_nothing_and_takes_nothing_along(make_store: MakeStore) -> None:
    async def drop() -> None:
        async with opened(make_store) as store:
            await store.commit([observation("a", "user", x=1.0), observation("b", application="app-10", x=2.0)])
            await store.drop("app-1")

    asyncio.run(drop())

    assert load(make_store) == load(make_store, context="user") == {}
    assert load(make_store, "app-10") == {"x": 2.0}
    assert run(make_store, [observation("a", x=1.0)]) == [[True]]


def test_numbers_keep_their_digits(make_store: MakeStore) -> None:
    numbers = {"x": 0.1, "y": 1.0 / 3, "z": 2.0**52 + 1, "small": 1e-6 / 3, "smallest": 5e-324, "large": 1.7e308}
    run(make_store, [observation("a", **numbers)])

    assert load(make_store) == numbers


def test_many_writers_at_once_lose_nothing(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    # All at once is more than workers do: on a slow disk the last one's turn comes late.
    monkeypatch.setattr("clipper.learning.stores.sqlite_connection.BUSY_TIMEOUT_S", 60.0)
    monkeypatch.setattr("clipper.learning.stores.sqlite_connection.ANSWER_WITHIN_S", 600.0)

    async def write() -> None:
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(opened(make_store)) for _ in range(4)]
            await asyncio.gather(
                *(
                    store.commit([observation(f"{writer}-{batch}-{index}", x=1.0) for index in range(10)])
                    for batch in range(10)
                    for writer, store in enumerate(stores)
                )
            )

    asyncio.run(write())

    assert load(make_store) == {"x": 400.0}


@settings(max_examples=share_of(25), deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1000, 1000)), max_size=20), st.randoms())
def test_the_order_of_increments_does_not_matter(increments: list[tuple[str, int]], random: Random) -> None:
    shuffled = increments.copy()
    random.shuffle(shuffled)

    assert _sums_of(increments) == _sums_of(shuffled)


def _sums_of(increments: list[tuple[str, int]]) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "selection.sqlite3"
        run(
            lambda: SqliteStore(path),
            [observation(str(i), **{name: float(n)}) for i, (name, n) in enumerate(increments)],
        )
        return load(lambda: SqliteStore(path))


def test_many_states_are_read_at_once(make_store: MakeStore) -> None:
    """As a list of feedback in new contexts does: more than Redis's client opens connections."""
    names = [f"c{number}" for number in range(500)]

    async def read() -> list[dict[str, Amount]]:
        async with opened(make_store) as store:
            await store.commit([observation(name, name, x=1.0) for name in names])
            return await asyncio.gather(*(store.load("app-1", name) for name in names))

    assert asyncio.run(read()) == [{"x": 1.0}] * 500


def test_arrays_add_up_beside_numbers_and_duplicates_do_not(make_store: MakeStore) -> None:
    """Also of more doubles than Lua's stack has room for."""
    long = [float(number) / 3 for number in range(4096)]
    first = arrays("a", x=1.0, s=[0.1, -1e300], long=long)
    run(make_store, [first, first, arrays("b", s=[0.2, 1e300])], [arrays("c", s=[1e-9, 5e-324]), first])

    found = load(make_store)
    assert found.keys() == {"x", "s", "long"} and found["x"] == 1.0
    assert np.array_equal(found["s"], np.array([0.1, -1e300]) + np.array([0.2, 1e300]) + np.array([1e-9, 5e-324]))
    assert np.array_equal(found["long"], long)


def test_arrays_go_with_their_state(make_store: MakeStore) -> None:
    async def leave() -> list[dict[str, Amount]]:
        async with opened(make_store) as store:
            await store.commit([arrays("a", "ada", x=1.0, s=[1.0]), arrays("b", "bob", x=1.0, s=[1.0], t=[2.0])])
            await store.forget_context("app-1", "ada")
            await store.forget("app-1", "bob", ["s"])
            left = [await store.load("app-1", context) for context in ("ada", "bob")]
            await store.drop("app-1")
            return [*left, await store.load("app-1", "bob"), await store.load("app-1", EVERYONE)]

    ada, bob, dropped, everyone = asyncio.run(leave())
    assert (ada, dropped, everyone) == ({}, {}, {})
    assert bob == {"x": 1.0, "t": np.array([2.0])}


def test_arrays_of_many_writers_at_once_are_all_there(make_store: MakeStore) -> None:
    async def write() -> None:
        async with opened(make_store) as one, opened(make_store) as other:
            writing = [
                store.commit([arrays(f"{number}-{index}", s=[1.0, float(number)])])
                for number in range(20)
                for index, store in enumerate((one, other))
            ]
            await asyncio.gather(*writing)

    asyncio.run(write())
    assert np.array_equal(load(make_store)["s"], [40.0, 380.0])
