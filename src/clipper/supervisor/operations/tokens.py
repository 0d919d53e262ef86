"""The tokens of the management API, in the home's file and the registry, and the expiry of tokens and keys."""

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from clipper.api.schemas import CreatedToken, NewToken, Token
from clipper.api.server.access import Holder
from clipper.api.server.operations import CALLER
from clipper.base.tls.expiry import day, duration
from clipper.base.whole_files import stamp, stamp_of, write_whole
from clipper.errors import Conflict, InvalidArgument, NotFound, Unauthorized, Unavailable
from clipper.settings.home import open_token, token_text
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.registry.records import KeyRecord, TokenRecord
from clipper.supervisor.registry.store import Delete, Put
from clipper.values.types import OPERATOR, RESERVED_CALLERS, check_name

# The warning begins a week before the expiry, in time to hand out another; or a quarter of the life before, if that is
# shorter. It ends as long after the expiry, when all users of the token have noticed.
WARN_S = 7 * 24 * 3600.0
WARN_SHARE = 0.25
YEAR_S = 365 * 24 * 3600.0
# A later time is as good as never, and is more likely a time in milliseconds.
MAX_LIFE_S = 100 * YEAR_S
# Further warnings are summarised in one line.
MAX_TOLD = 5

Expiring = KeyRecord | TokenRecord


def check_expiry(at_s: float | None) -> None:
    """Raise InvalidArgument if the time has passed, or is so far away that it cannot be meant."""
    now_s = time.time()
    if at_s is not None and not now_s < at_s < now_s + MAX_LIFE_S:
        raise InvalidArgument(
            f"expires_at is {at_s:.17g}: expected seconds since 1970, later than now ({now_s:.0f}) and within "
            f"{MAX_LIFE_S / YEAR_S:.0f} years; leave it out for no expiry"
        )


def expiry_problems(keys: Iterable[KeyRecord], tokens: Iterable[TokenRecord], now_s: float) -> list[str]:
    """Return the warnings about keys and tokens, in the order in which they expire."""
    return _problems("key", keys, now_s) + _problems("token", tokens, now_s)


def next_expiry(records: Iterable[Expiring], now_s: float) -> float | None:
    """Return when the first key or token that is still valid expires; None if none will."""
    ends = [one.expires_at for one in records if one.expires_at is not None and one.expires_at > now_s]
    return min(ends, default=None)


def _problems(kind: str, records: Iterable[Expiring], now_s: float) -> list[str]:
    due: Sequence[tuple[float, str]] = sorted(
        (one.expires_at, one.name)
        for one in records
        if one.expires_at is not None
        and abs(one.expires_at - now_s) <= min(WARN_S, WARN_SHARE * (one.expires_at - one.created_at))
    )
    told = [
        f"{kind} {name!r} {when} ({day(at_s)}): make another one with clipper {kind} create, and revoke this one"
        for at_s, name in due[:MAX_TOLD]
        for when in (f"expires in {duration(at_s - now_s)}" if at_s > now_s else "has expired, and is refused",)
    ]
    more = len(due) - MAX_TOLD
    return told + ([f"{more} more {kind}s expire, too: clipper {kind} list shows when"] if more > 0 else [])


log = logging.getLogger(__name__)

# 256 random bits cannot be guessed, however fast the server answers.
_RANDOM_BYTES = 32
# A token that an operator writes must be too long to guess, and consist of characters that a header can
# carry.
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{32,512}")


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def new_token(prefix: str = "clipper") -> str:
    """Make a token or a key. Its prefix lets scanners of logs and repositories recognise it as a secret."""
    return f"{prefix}_{secrets.token_urlsafe(_RANDOM_BYTES)}"


class TokenFile:
    """Reads the home's token, and makes it if there is none. Only the holder of the home's lock may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._token = ""

    def open(self) -> str:
        """Return the token, made if the file is missing or empty. Raises Unavailable if the file cannot be used."""
        try:
            text = self._read()
            if not text:
                made = new_token()
                write_whole(self._path, [f"{made}\n".encode()], is_synced=True)
                self._token, self._seen = made, stamp(self._path)
            elif not TOKEN.fullmatch(text):
                raise Unavailable(
                    f"{self._path} holds no token: expected 32 to 512 letters, digits or ._~+/=-; delete the file, and "
                    "the next start makes one"
                )
            else:
                self._token = text
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"the token file {self._path} cannot be used: {error}") from error
        return self._token

    def matches(self, token: str) -> bool:
        """Compare a token in a time that does not depend on how many characters match."""
        return hmac.compare_digest(digest_of(token), digest_of(self.again()))

    def again(self) -> str:
        """Return the token in the file now; without a usable file the last token, which can still stop the server."""
        try:
            if stamp(self._path) != self._seen:
                log.info("the token file %(file)s was changed or removed", {"file": self._path})
                self.open()
        except (Unavailable, OSError) as error:
            log.warning("the token stays as it was: %(error)s", {"error": error})
            # Logged once, not for each call until the file changes again.
            self._seen = stamp(self._path)
        return self._token

    def _read(self) -> str:
        """Return the content of the file; empty if there is no file."""
        try:
            with open_token(self._path) as file:
                found = os.fstat(file.fileno())
                # Taken before the file is read: if it is replaced meanwhile, the next call sees that.
                self._seen = stamp_of(found)
                if found.st_mode & 0o077:
                    self._close_to_others(file.fileno())
                return token_text(file)
        except FileNotFoundError:
            self._seen = None
            return ""

    def _close_to_others(self, descriptor: int) -> None:
        """Close the file to other users: the home's own mode may have been lost when it was copied or shared."""
        try:
            os.fchmod(descriptor, 0o600)
            log.warning(
                "others could read %(file)s; its mode is 0600 now: delete it to have a new token made",
                {"file": self._path},
            )
        except OSError as error:  # the file may be mounted read-only, like a secret of an orchestrator
            log.warning(
                "%(file)s can be read by others, and its mode cannot be changed: %(error)s",
                {"file": self._path, "error": error},
            )


# A token for each person and each program. Each call is compared with all tokens.
MAX_TOKENS = 100


class Tokens:
    """Knows tokens by their digests, which reveal nothing of 256 random bits, and the role of each."""

    def __init__(self, catalog: Catalog, file: TokenFile) -> None:
        """Read the file. Raises Unavailable if it holds no token."""
        self._catalog = catalog
        self._file = file
        file.open()

    def holder_of(self, token: str | None) -> Holder | None:
        """Return the name and role of a token; None if it is unknown. A replaced token file is noticed here."""
        if token is None:
            self._file.again()
            return None
        # All tokens are compared, each in a time that does not depend on how many characters match.
        asked = digest_of(token)
        holder = Holder(OPERATOR, "admin") if self._file.matches(token) else None
        for record in self._catalog.tokens.values():
            if hmac.compare_digest(asked, record.digest):
                holder = Holder(record.name, record.role)
                if record.expires_at is not None and time.time() >= record.expires_at:
                    raise Unauthorized(
                        f"token {record.name!r} expired on {day(record.expires_at)}: ask someone with the role admin "
                        "to make another with clipper token create"
                    )
        return holder

    def list_all(self) -> list[Token]:
        return [
            Token(record.name, record.role, record.created_at, record.expires_at)
            for _, record in sorted(self._catalog.tokens.items())
        ]

    def create(self, new: NewToken) -> CreatedToken:
        """Make a token. Raises InvalidArgument, RegistryUnavailable; Conflict for a taken name, or too many tokens."""
        check_name("token", new.name, self._catalog.tokens)
        if new.name.lower() in RESERVED_CALLERS:
            raise InvalidArgument(f"token {new.name!r} stands for the server or its operator in events: choose another")
        check_expiry(new.expires_at)
        if new.name in self._catalog.tokens:
            raise Conflict(f"token {new.name!r} exists already: revoke it first, or choose another name")
        if len(self._catalog.tokens) >= MAX_TOKENS:
            raise Conflict(f"there are {MAX_TOKENS} tokens, the most that are allowed: revoke one first")
        token = new_token()
        record = TokenRecord(new.name, new.role, digest_of(token), time.time(), new.expires_at)
        self._catalog.commit(Put(record), by=CALLER.get())
        return CreatedToken(record.name, record.role, record.created_at, record.expires_at, token=token)

    def revoke(self, name: str) -> None:
        """Revoke a token. Raises NotFound, and RegistryUnavailable if the registry cannot be written."""
        if name not in self._catalog.tokens:
            raise NotFound(f"token {name!r} does not exist: clipper token list shows those that do")
        self._catalog.commit(Delete(TokenRecord, name), by=CALLER.get())
