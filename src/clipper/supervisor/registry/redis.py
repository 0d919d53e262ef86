"""The registry in Redis, for several supervisors of which one leads: the extra ``clipper-serving[redis]``.

A change is acknowledged once Redis has it on disk, which may take a second: a thread waits for that, for all changes so
far at once. Every call is bounded: see ``durable_redis``. While the last request was not answered, changes are refused
at once, so that the supervisor's event loop does not wait for a Redis that is away.
"""

import asyncio
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import redis
from redis.exceptions import RedisError

from clipper.base import durable_redis
from clipper.base.known_ids import Known
from clipper.base.masking import without_password
from clipper.errors import NotLeader, RegistryUnavailable, TooLarge
from clipper.supervisor.registry import redis_scripts, shared
from clipper.supervisor.registry.lease import Lease, LeaseTimes
from clipper.supervisor.registry.records import TABLES, name_of
from clipper.supervisor.registry.store import (
    SCHEMA_VERSION,
    Change,
    Contents,
    Delete,
    ForgetLater,
    Forgotten,
    Put,
    read_contents,
)

# All keys begin with this, so that Clipper can share a Redis with others.
PREFIX = "clipper:registry:"
# Longer than any address or name.
MAX_TEXT_BYTES = 1000
# The most pieces on their way to Redis' disk, which may write only once a second.
SYNC_EVERY_PIECES = 8
# An uploaded piece is removed after this time, unless its artifact is complete by then.
PIECE_EXPIRY_S = 3600

# A whole number that fits into 64 bits.
_NUMBER = re.compile(rb"[0-9]{1,18}")


class RedisRegistry:
    """A ``SharedRegistry`` in Redis."""

    def __init__(
        self,
        url: str,
        holder: shared.Holder,
        times: LeaseTimes | None = None,
        now_s: Callable[[], float] = shared.clock_s,
        known: Known | None = None,
    ) -> None:
        """Open nothing yet. ``known`` keeps the registry's id. Raises ValueError if the address is malformed."""
        self.shown_address = without_password(url)
        self.id = ""
        self.lease: Lease | None = None
        self.doubt: str | None = None
        self._holder = holder
        self._times = times or LeaseTimes()
        self._now_s = now_s
        self._known = known or Known()
        self._client: Any = durable_redis.open_client(url)
        # The names of changes that may not be on disk yet, and how many are on disk.
        self._unsynced: list[str] = []
        self._synced = 0
        self._syncing: asyncio.Task[None] | None = None
        self._scripts: dict[str, Any] = {
            name: self._client.register_script(getattr(redis_scripts, name))
            for name in ("ACQUIRE", "RENEW", "WRITE", "SYNCED", "RESERVE", "RELEASE", "COMPLETE", "REMOVE", "KEEP")
        }

    def acquire(self, takes: bool = True) -> Lease | shared.Leader | shared.Away:
        asked_at_s = self._now_s()
        duration_ms = round(self._times.duration_s * 1000)
        try:
            with self._client.client() as connection:
                if why := durable_redis.why_it_evicts(connection.info("memory")):
                    raise RegistryUnavailable(f"the registry {self.shown_address} cannot be used: {why}")
                holder = self._holder
                known = [PREFIX, SCHEMA_VERSION, duration_ms, holder.id, holder.address, secrets.token_hex(8)]
                expected = self._known.read(self.shown_address)
                reply = self._scripts["ACQUIRE"](args=[*known, int(takes), expected], client=connection)
                if reply[0] == b"another":
                    return shared.Away(
                        f"the registry {self.shown_address} is not the registry that this server knows: Redis was "
                        "emptied, or another Redis has its address. Restore its data; or, to begin anew, stop this "
                        f"server and remove the file {shared.REGISTRY_ID_NAME} from its home"
                    )
                if reply[0] == b"newer":
                    raise RegistryUnavailable(
                        f"registry {self.shown_address} has schema version {_text(reply[1])}, this Clipper knows "
                        f"{SCHEMA_VERSION}: run the Clipper that wrote it, or a newer one"
                    )
                if reply[0] == b"led":
                    self._known.write(self.shown_address, _text(reply.pop()))
                    return _leader(reply)
                # An epoch that Redis forgot when it crashed would be given out twice.
                _sync(connection)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            # Without a password, or with a wrong password, Redis never grants anything.
            if isinstance(error, redis.AuthenticationError):
                raise RegistryUnavailable(self._away(str(error))) from error
            return shared.Away(self._away(str(error)))
        except RedisError as error:
            raise RegistryUnavailable(self._away(str(error))) from error
        self.id = _text(reply[2])
        self._known.write(self.shown_address, self.id)
        self.lease = Lease(self._times, int(reply[1]), asked_at_s)
        return self.lease

    def renew(self, is_ready: bool) -> shared.Renewed | shared.Leader | shared.Away:
        try:
            with self._client.client() as connection:
                reply = self._scripts["RENEW"](args=[*self._fence(), int(is_ready)], client=connection)
                # If Redis forgot a renewal in a crash, its holder would act after the end of the lease.
                _sync(connection)
        except RedisError as error:
            return shared.Away(self._away(str(error)))
        return _leader(reply) if reply[0] == b"led" else shared.Renewed(_text(reply[1]) or None)

    def release(self) -> None:
        if self.lease is not None:
            with self._explained():
                self._scripts["RELEASE"](args=[PREFIX, self.lease.epoch])

    def load(self) -> Contents:
        with self._explained():
            pipeline = self._client.pipeline(transaction=True)
            for table in TABLES.values():
                pipeline.hgetall(PREFIX + table)
            *found, to_forget = pipeline.smembers(PREFIX + "to_forget").execute()
        rows = {kind: sorted(records.items()) for kind, records in zip(TABLES, found)}
        return read_contents(rows, sorted(map(_text, to_forget)))

    def write(self, *changes: Change) -> None:
        reply = self._change("WRITE", [part for change in changes for part in _operation(change)])
        if reply[0] == b"no model":
            raise RegistryUnavailable(
                f"registry {self.shown_address}: nothing was changed: model {_text(reply[1])!r} of a version does "
                "not exist"
            )

    async def sync(self) -> None:
        wanted = self._synced + len(self._unsynced)
        while self._synced < wanted:
            if self.doubt is not None:
                raise RegistryUnavailable(self._in_doubt(self.doubt))
            if self._syncing is None:
                self._syncing = asyncio.get_running_loop().create_task(self._sync_all())
                # If all its waiters have been cancelled, nobody retrieves its error.
                self._syncing.add_done_callback(lambda task: task.cancelled() or task.exception())
            await asyncio.shield(self._syncing)

    async def _sync_all(self) -> None:
        """Wait for the disk on a thread. Changes that come meanwhile wait for the next time."""
        names, asked_at_s = list(self._unsynced), self._now_s()
        try:
            known = await asyncio.to_thread(self._wait_for_disk, names)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            self.doubt = f"Redis did not say whether it stored a change: {error}"
            if self.lease is not None:
                self.lease.miss(asked_at_s, self._now_s(), self._away(str(error)))
            raise RegistryUnavailable(self._in_doubt(self._away(str(error)))) from error
        except RedisError as error:
            raise RegistryUnavailable(f"registry {self.shown_address}: {error}") from error
        finally:
            self._syncing = None
        if known < len(names):
            self.doubt = f"Redis has lost {len(names) - known} changes: it was started again, or replaced"
            raise RegistryUnavailable(self._in_doubt(self.doubt))
        self._synced, self._unsynced = self._synced + len(names), self._unsynced[len(names) :]

    def _wait_for_disk(self, names: Sequence[str]) -> int:
        with self._client.client() as connection:
            known: int = self._scripts["SYNCED"](args=[PREFIX, *names], client=connection)
            _sync(connection)
        return known

    def _in_doubt(self, why: str) -> str:
        return f"{why}; the change may have been made or not: check that before you ask again"

    def reserve(self, counter: str, count: int) -> int:
        return int(self._change("RESERVE", [counter, count])[1]) - count + 1

    def secret(self, name: str, made: bytes) -> bytes:
        kept = self._change("KEEP", [name, made.decode("ascii")])[1]
        if kept == made:
            with self._explained():
                self._wait_for_disk([])
        return kept

    def artifact_sizes(self) -> dict[str, int]:
        with self._explained():
            sizes = self._client.hgetall(PREFIX + "artifacts")
        # Values that are no sizes were not written by Clipper, and no version has such an artifact.
        return {_text(digest): int(size) for digest, size in sizes.items() if _NUMBER.fullmatch(size)}

    def admit_artifact(self, size_bytes: int) -> None:
        if size_bytes > shared.MAX_ARTIFACT_BYTES:
            raise TooLarge(
                f"the artifact has {size_bytes} bytes, and a registry in Redis takes at most "
                f"{shared.MAX_ARTIFACT_BYTES}: leave out what the model does not need, or let it get its data from "
                "elsewhere"
            )
        stored_bytes = sum(self.artifact_sizes().values())
        if stored_bytes + size_bytes > shared.MAX_ARTIFACTS_BYTES:
            raise TooLarge(
                f"the artifacts in the registry {self.shown_address} have {stored_bytes} bytes, and this one of "
                f"{size_bytes} would take them over {shared.MAX_ARTIFACTS_BYTES}: delete versions that are not needed, "
                "or start the server with a lower --keep-versions"
            )

    def put_piece(self, digest: str, number: int, piece: bytes) -> None:
        with self._explained(), self._client.client() as connection:
            connection.set(_piece_key(digest, number), piece, ex=PIECE_EXPIRY_S)
            # So that at the end no more pieces wait for the disk than it can write in time.
            if (number + 1) % SYNC_EVERY_PIECES == 0:
                _sync(connection)

    def complete_artifact(self, digest: str, size_bytes: int) -> None:
        pieces = -(-size_bytes // shared.PIECE_BYTES)
        if self._change("COMPLETE", [digest, size_bytes, pieces])[0] == b"no piece":
            raise RegistryUnavailable(
                f"registry {self.shown_address}: a piece of artifact {digest} is gone: upload it again"
            )

    def get_piece(self, digest: str, number: int) -> bytes:
        with self._explained():
            piece: bytes | None = self._client.get(_piece_key(digest, number))
        if piece is None:
            raise RegistryUnavailable(f"registry {self.shown_address}: a piece of artifact {digest} is gone")
        return piece

    def remove_artifact(self, digest: str) -> None:
        self._change("REMOVE", [digest])

    def close(self) -> None:
        self._client.close()

    def _fence(self) -> list[str | int]:
        assert self.lease is not None, "only a leader changes anything"
        return [PREFIX, self.lease.epoch, round(self._times.duration_s * 1000)]

    def _change(self, script: str, arguments: Sequence[str | int]) -> list[bytes]:
        """Run a script that changes something under the lease. ``sync`` waits until the disk has it."""
        lease = self.lease
        if lease is None or lease.why_lost is not None:
            raise NotLeader(lease.why_lost if lease and lease.why_lost else "this server does not lead its cluster")
        if lease.silent_since_s is not None:
            raise RegistryUnavailable(f"{lease.why_silent}; nothing was changed")
        if self.doubt is not None:
            raise RegistryUnavailable(f"{self.doubt}; nothing was changed")
        asked_at_s, name = self._now_s(), secrets.token_hex(8)
        try:
            connection = self._client.client()
        except RedisError as error:
            lease.miss(asked_at_s, self._now_s(), self._away(str(error)))
            raise RegistryUnavailable(f"{lease.why_silent}; nothing was changed") from error
        try:
            with connection:
                given = [*self._fence(), name, *arguments]
                reply: list[bytes] = self._scripts[script](args=given, client=connection)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            self.doubt = f"Redis did not say whether it stored a change: {error}"
            lease.miss(asked_at_s, self._now_s(), self._away(str(error)))
            raise RegistryUnavailable(self._in_doubt(lease.why_silent)) from error
        except RedisError as error:
            raise RegistryUnavailable(f"registry {self.shown_address}: {error}") from error
        if reply[0] == b"led":
            lease.lose(_led(_leader(reply)))
            raise NotLeader(f"{lease.why_lost}; nothing was changed: ask that server")
        # This does not confirm the lease: Redis may forget in a crash that it was renewed.
        self._unsynced.append(name)
        return reply

    def _away(self, why: str) -> str:
        return (
            f"the registry {self.shown_address} cannot be used: {why}; check that Redis runs and can be reached, and "
            "that it keeps an append-only file (appendonly yes)"
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except RedisError as error:
            raise RegistryUnavailable(self._away(str(error))) from error


def _sync(connection: Any) -> None:
    """Wait until the disk has what this connection wrote."""
    durable_redis.check_on_disk(connection.execute_command(*durable_redis.disk_wait()))


def _leader(reply: list[bytes]) -> shared.Leader:
    _, epoch, address, since, ready = reply
    numbers = (int(text) if _NUMBER.fullmatch(text) else 0 for text in (epoch, since))
    return shared.Leader(next(numbers), _text(address), float(next(numbers)), ready == b"1")


def _text(found: bytes) -> str:
    """Return a text from Redis in a form for people, whoever wrote it."""
    return found[:MAX_TEXT_BYTES].decode(errors="replace")


def _led(leader: shared.Leader) -> str:
    if leader.epoch == 0:
        return (
            "the registry has no leader on record: its Redis has lost what it stored, or somebody else has written "
            "there"
        )
    return f"another server leads this cluster now, with epoch {leader.epoch}: {leader.address}"


def _piece_key(digest: str, number: int) -> str:
    return f"{PREFIX}artifact:{digest}:{number}"


def _operation(change: Change) -> tuple[str, str, str, str]:
    """Return a change in the form that the script takes: kind, key, name and text."""
    match change:
        case Put(record):
            return "put", TABLES[type(record)], name_of(record), msgspec.json.encode(record).decode()
        case Delete(kind, name):
            return "delete", TABLES[kind], name, ""
        case ForgetLater(application_id):
            return "add", "to_forget", application_id, ""
        case Forgotten(application_id):
            return "remove", "to_forget", application_id, ""
