"""The keys that an operator makes for clients of the query port."""

import time

from msgspec import UNSET, UnsetType

from clipper.api.schemas import FINGERPRINT_LENGTH, CreatedKey, Key, NewKey
from clipper.api.server.operations import CALLER
from clipper.errors import Conflict, InvalidArgument, NotFound
from clipper.settings.fields import check_ranges, shared
from clipper.supervisor.operations.parts import OfParts
from clipper.supervisor.operations.tokens import TOKEN, check_expiry, digest_of, new_token
from clipper.supervisor.reconciler.reconciler import REACH_TIMEOUT_S
from clipper.supervisor.registry.records import KeyRecord
from clipper.supervisor.registry.store import Delete, Put
from clipper.values.types import check_name

# A key for each client program or customer. All are in each snapshot, and keys with limits have metrics.
MAX_KEYS = 1000
MAX_APPLICATIONS = 64


class KeyOperations(OfParts):
    """The operations on keys. Workers know only digests of keys, which reveal nothing of 256 random bits."""

    async def list_keys(self) -> list[Key]:
        return [_view(record) for _, record in sorted(self._catalog.keys.items())]

    async def create_key(self, new: NewKey) -> CreatedKey:
        """Make a key. Raises InvalidArgument, RegistryUnavailable, NotFound for an application, and Conflict."""
        check_name("key", new.name, self._catalog.keys)
        check_ranges(new)
        before = self._catalog.keys.get(new.name)
        if before is not None and not new.replace:
            raise Conflict(f"key {new.name!r} exists already: revoke it first, or choose another name")
        if before is None and len(self._catalog.keys) >= MAX_KEYS:
            raise Conflict(f"there are {MAX_KEYS} keys, the most that are allowed: revoke one first")
        applications = tuple(sorted(set(new.applications)))
        if len(applications) > MAX_APPLICATIONS:
            raise InvalidArgument(
                f"a key for {len(applications)} applications: expected at most {MAX_APPLICATIONS}, or none for all"
            )
        for name in applications:
            self._catalog.application(name)
        if new.key is not None and not TOKEN.fullmatch(new.key):
            raise InvalidArgument("the key is not valid: expected 32 to 512 letters, digits or ._~+/=-")
        key = new_token("clipperkey") if new.key is None else new.key
        digest = digest_of(key)
        if any(record.digest == digest and name != new.name for name, record in self._catalog.keys.items()):
            raise Conflict(f"key {new.name!r} is the same as another one: give each client a key of its own")
        expires_at = None if isinstance(new.expires_at, UnsetType) else new.expires_at
        if new.expires_at is UNSET and before is not None and before.digest == digest:
            expires_at = before.expires_at
        else:
            check_expiry(expires_at)
        limits = new.max_in_flight, new.max_per_second
        record = KeyRecord(new.name, digest, applications, *limits, expires_at, created_at=time.time())
        self._catalog.commit(Put(record), by=CALLER.get())
        # A worker that does not know the key yet will know it soon. An error would lose the key, which is shown only
        # once.
        await self._reconciler.reach_workers(REACH_TIMEOUT_S)
        return CreatedKey(**shared(_view(record), CreatedKey), key=key)

    async def revoke_key(self, name: str) -> None:
        """Revoke a key. Raises NotFound, RegistryUnavailable; Unavailable if a worker may still take it."""
        if name not in self._catalog.keys:
            raise NotFound(f"key {name!r} does not exist: clipper key list shows those that do")
        self._catalog.commit(Delete(KeyRecord, name), by=CALLER.get())
        await self._reach_workers(f"key {name!r} is revoked")


def _view(record: KeyRecord) -> Key:
    return Key(**shared(record, Key), fingerprint=record.digest[:FINGERPRINT_LENGTH])
