"""Decides which keys and tokens to warn about before they expire, and just after."""

import time
from collections.abc import Iterable, Sequence

from clipper.base.tls.expiry import day, duration
from clipper.errors import InvalidArgument
from clipper.supervisor.registry.records import KeyRecord, TokenRecord

# A week to hand out another one; a quarter of its life, if that is shorter. It is told as long afterwards: then whoever
# needed it has noticed.
WARN_S = 7 * 24 * 3600.0
WARN_SHARE = 0.25
YEAR_S = 365 * 24 * 3600.0
# Later is as good as never, and more likely milliseconds.
MAX_LIFE_S = 100 * YEAR_S
# More of them make one line.
MAX_TOLD = 5

Expiring = KeyRecord | TokenRecord


def check_expiry(at_s: float | None) -> None:
    """
    Raises:
        InvalidArgument: the time has passed, or is so far away that it is meant otherwise.
    """
    now_s = time.time()
    if at_s is not None and not now_s < at_s < now_s + MAX_LIFE_S:
        raise InvalidArgument(
            f"expires_at is {at_s:.17g}: expected seconds since 1970, later than now ({now_s:.0f}) and within "
            f"{MAX_LIFE_S / YEAR_S:.0f} years; leave it out for what never expires"
        )


def expiry_problems(keys: Iterable[KeyRecord], tokens: Iterable[TokenRecord], now_s: float) -> list[str]:
    """Return the warnings about keys and tokens, the first to expire first."""
    return _problems("key", keys, now_s) + _problems("token", tokens, now_s)


def next_expiry(records: Iterable[Expiring], now_s: float) -> float | None:
    """Return when the first of those that are still valid expires; None if none will."""
    ends = [one.expires_at for one in records if one.expires_at is not None and one.expires_at > now_s]
    return min(ends, default=None)


def _problems(kind: str, records: Iterable[Expiring], now_s: float) -> list[str]:
    due: Sequence[tuple[float, str]] = sorted(
        (one.expires_at, one.name)
        for one in records
        if one.expires_at is not None and abs(one.expires_at - now_s) <= _warn_s(one.created_at, one.expires_at)
    )
    told = [
        f"{kind} {name!r} {_when(at_s - now_s)} ({day(at_s)}): make another one with clipper {kind} create, and "
        f"revoke this one"
        for at_s, name in due[:MAX_TOLD]
    ]
    more = len(due) - MAX_TOLD
    return told + ([f"{more} more {kind}s expire: clipper {kind} list shows when"] if more > 0 else [])


def _when(left_s: float) -> str:
    return f"expires in {duration(left_s)}" if left_s > 0 else "has expired, and is refused"


def _warn_s(created_s: float, expires_s: float) -> float:
    return min(WARN_S, WARN_SHARE * (expires_s - created_s))
