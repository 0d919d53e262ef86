"""Keeps answered queries in the store (--remember-in-store): other servers find them once this worker has ended."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from time import time

from clipper.errors import ClipperError, ProtocolViolation
from clipper.learning.mathematics.arms import Arms
from clipper.learning.stores.store import Queries
from clipper.worker.selection.application import Application
from clipper.worker.selection.feedback.join_table import JoinTable, query_bytes
from clipper.worker.selection.feedback.remembered import as_query, decode_arms, decode_query, encode_arms, encode_query
from clipper.worker.selection.query import Query

log = logging.getLogger(__name__)

# A worker that is killed loses the queries of this time. A write takes a millisecond, however few they are.
WRITE_EVERY_S = 0.05
# Queries that are written, or read, in one step, and about their size: a millisecond or two.
AT_ONCE = 100
BYTES_AT_ONCE = 256 * 1024
# A larger query is not written: its input or outputs would be most of what Redis does and holds.
MAX_QUERY_BYTES = 64 * 1024
# Arms whose bytes are remembered. An application has one at a time, and new ones when versions change.
MAX_ARMS = 256


class Remembering:
    """Writes a worker's queries to the store, and reads those of others."""

    def __init__(
        self,
        queries: Queries,
        joins: JoinTable,
        applications: Mapping[str, Application],
        wall_clock_s: Callable[[], float] = time,
    ) -> None:
        self._queries = queries
        self._joins = joins
        self._applications = applications
        self._now_s = asyncio.get_running_loop().time
        self._wall_clock_s = wall_clock_s
        # By ``id()``; each object is held, so that no other object gets the same id.
        self._arms: dict[int, tuple[Arms, bytes, bytes]] = {}
        self._is_down = self._is_ending = False
        self._writing: asyncio.Task[None] | None = None
        joins.fresh = []

    def begin(self) -> None:
        """Write what is answered, until ``end``."""
        self._writing = asyncio.get_running_loop().create_task(self._keep_writing())

    async def end(self) -> None:
        """Write the rest."""
        self._is_ending = True
        if self._writing is not None:
            await self._writing
            await self.write()  # what was answered during the last write

    async def _keep_writing(self) -> None:
        while not self._is_ending:
            await asyncio.sleep(WRITE_EVERY_S)
            await self.write()

    async def write(self) -> None:
        """Write the queries that were answered, or got another output, since the last time."""
        fresh, self._joins.fresh = self._joins.fresh or [], []
        done = 0
        while done < len(fresh):
            # By id, since a query comes once more for each late output.
            some: dict[int, Query] = {}
            left_bytes = BYTES_AT_ONCE
            while done < len(fresh) and len(some) < AT_ONCE and left_bytes > 0:
                query = fresh[done]
                done += 1
                if (size_bytes := query_bytes(query)) > MAX_QUERY_BYTES:
                    self._joins.unstored += 1
                    continue
                some[query.id] = query
                left_bytes -= size_bytes
            try:
                await self._write(some)
            except Exception as error:  # whatever the error is, later queries must be written
                if not isinstance(error, ClipperError):
                    log.exception("failed to remember queries in the store")
                elif not self._is_down:
                    log.warning("queries are not remembered in the store: %(error)s", {"error": error})
                self._is_down = True
                # The store may fail slowly, and the next queries wait.
                self._joins.unstored += len(some) + len(fresh) - done
                return
            self._is_down = False

    async def _write(self, queries: Mapping[int, Query]) -> None:
        texts: dict[int, tuple[bytes, bytes]] = {}
        shared: dict[bytes, bytes] = {}
        keep_s = 0.0
        wall_less_now_s = self._wall_clock_s() - self._now_s()
        for id_, query in queries.items():
            application = self._applications.get(query.owner.name)
            if application is None or query.owner is not application.answering:
                continue  # it was deleted meanwhile
            text = encode_query(query, application.snapshot.id, query.arrival_s + wall_less_now_s)
            _, name, arms = self._arms.get(id(query.arms)) or self._encoded(query.arms)
            texts[id_], shared[name] = (name, text), arms
            keep_s = max(keep_s, query.owner.feedback_ttl_s)
        if texts:
            await self._queries.keep(texts, shared, keep_s, self._joins.last_evicted)
            self._joins.stored += len(texts)

    def _encoded(self, arms: Arms) -> tuple[Arms, bytes, bytes]:
        if len(self._arms) >= MAX_ARMS:
            self._arms.clear()
        text = encode_arms(arms)
        name = b"a" + hashlib.blake2b(text, digest_size=8).hexdigest().encode()
        encoded = self._arms[id(arms)] = arms, name, text
        return encoded

    async def recall(self, ids: Collection[int]) -> dict[int, Query]:
        """Return those of the queries that are kept, and not too old, with the steps of pipelines.

        Raises StoreUnavailable.
        """
        found = await self._read(list(ids))
        steps = {id_ for query in found.values() if query.path is not None for _, _, id_ in query.path.queries}
        return found | await self._read(list(steps))

    async def _read(self, ids: Sequence[int]) -> dict[int, Query]:
        arms: dict[bytes, Arms] = {}
        queries: dict[int, Query] = {}
        for start in range(0, len(ids), AT_ONCE):
            found = await self._queries.find(ids[start : start + AT_ONCE])
            now_s, wall_clock_s = self._now_s(), self._wall_clock_s()
            for id_, (text, shared) in found.items():
                try:
                    remembered = decode_query(text)
                    if shared not in arms:
                        arms[shared] = decode_arms(shared)
                except ProtocolViolation as error:
                    log.warning("%(error)s", {"error": error})
                    continue
                application = self._applications.get(remembered.application)
                if application is None or application.snapshot.id != remembered.application_id:
                    continue
                age_s = max(wall_clock_s - remembered.asked_s, 0.0)
                if age_s < application.terms.feedback_ttl_s:
                    queries[id_] = as_query(id_, remembered, arms[shared], application.answering, now_s - age_s)
        return queries
