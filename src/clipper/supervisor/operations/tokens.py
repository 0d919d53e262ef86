"""The tokens of the management API: the server's own, and those that an operator makes."""

import hmac
import time

from clipper.api.schemas import CreatedToken, NewToken, Token
from clipper.api.server.access import Holder
from clipper.api.server.caller import CALLER
from clipper.base.tls.expiry import day
from clipper.errors import Conflict, InvalidArgument, NotFound, Unauthorized
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.operations.expiries import check_expiry
from clipper.supervisor.operations.token_file import TokenFile, digest_of, new_token
from clipper.supervisor.registry.records import TokenRecord
from clipper.supervisor.registry.store import Delete, Put
from clipper.values.types import OPERATOR, RESERVED_CALLERS, check_name

# One for each person and each program. Each call is compared with all of them.
MAX_TOKENS = 100


class Tokens:
    """Knows tokens by their digests, which reveal nothing of 256 random bits, and the role of each."""

    def __init__(self, catalog: Catalog, file: TokenFile) -> None:
        """Raises Unavailable if the file holds no token."""
        self._catalog = catalog
        self._file = file
        file.open()

    def holder_of(self, token: str | None) -> Holder | None:
        """The name and role of a token; None if it is not known. A replaced or removed token file is noticed here."""
        if token is None:
            self._file.again()
            return None
        # All are compared, each in a time that does not depend on how many characters match.
        asked = digest_of(token)
        holder = Holder(OPERATOR, "admin") if self._file.matches(token) else None
        for record in self._catalog.tokens.values():
            if hmac.compare_digest(asked, record.digest):
                holder = Holder(record.name, record.role)
                if record.expires_at is not None and time.time() >= record.expires_at:
                    raise Unauthorized(
                        f"token {record.name!r} expired on {day(record.expires_at)}: whoever has one of the role admin "
                        "makes another with clipper token create"
                    )
        return holder

    def list_all(self) -> list[Token]:
        return [
            Token(record.name, record.role, record.created_at, record.expires_at)
            for _, record in sorted(self._catalog.tokens.items())
        ]

    def create(self, new: NewToken) -> CreatedToken:
        """
        Raises:
            InvalidArgument: the name is not valid, or the time has passed.
            Conflict: the name is taken, or there are as many as are allowed.
            RegistryUnavailable: the registry cannot be written.
        """
        check_name("token", new.name)
        if new.name in RESERVED_CALLERS:
            raise InvalidArgument(
                f"token {new.name!r} cannot be told from what {new.name!r} stands for in events: choose another name"
            )
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
        """
        Raises:
            NotFound: there is no such name.
            RegistryUnavailable: the registry cannot be written.
        """
        if name not in self._catalog.tokens:
            raise NotFound(f"token {name!r} does not exist: clipper token list shows those that do")
        self._catalog.commit(Delete(TokenRecord, name), by=CALLER.get())
