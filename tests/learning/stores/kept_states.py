"""Shared by the tests of both stores: committing to a store and reading it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np

from clipper.learning.stores.store import EVERYONE, Amount, Observation, Store

MakeStore = Callable[[], Store]


def observation(name: str, context: str = "", application: str = "app-1", **increments: float) -> Observation:
    contexts = {EVERYONE: increments} | ({context: increments} if context else {})
    return Observation(name, application, contexts)


@asynccontextmanager
async def opened(make_store: MakeStore) -> AsyncIterator[Store]:
    store = make_store()
    try:
        yield store
    finally:
        await store.close()


def run(make_store: MakeStore, *commits: list[Observation]) -> list[list[bool]]:
    async def commit_all() -> list[list[bool]]:
        async with opened(make_store) as store:
            return [await store.commit(commit) for commit in commits]

    return asyncio.run(commit_all())


def load(make_store: MakeStore, application: str = "app-1", context: str = EVERYONE) -> dict[str, Amount]:
    async def load_one() -> dict[str, Amount]:
        async with opened(make_store) as store:
            return await store.load(application, context)

    return asyncio.run(load_one())


def arrays(name: str, context: str = "", **increments: list[float] | float) -> Observation:
    amounts = {key: np.array(each) if isinstance(each, list) else each for key, each in increments.items()}
    return Observation(name, "app-1", {EVERYONE: amounts} | ({context: amounts} if context else {}))
