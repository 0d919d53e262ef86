"""Who may call the management API: the server's own token, and those that an operator makes."""

import hashlib
import hmac
import time

from clipper.errors import Conflict, NotFound
from clipper.management.schemas import CreatedToken, NewToken, Token
from clipper.registry.records import TokenRecord
from clipper.registry.store import DeleteToken, Put
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.operations.token_file import TokenFile, new_token
from clipper.types import Role, check_name

# One for each person and each program that looks; each call is compared with all.
MAX_TOKENS = 100


class Tokens:
    """Knows the roles of tokens, by their digests: a token has 256 random bits, so its digest tells nothing of it."""

    def __init__(self, catalog: Catalog, file: TokenFile) -> None:
        """Raises Unavailable if the file holds no token."""
        self._catalog = catalog
        self._file = file
        file.open()

    def role_of(self, token: str | None) -> Role | None:
        """None if it is not known. A file that was replaced or removed counts from this very call on."""
        own = self._file.again()
        return None if token is None else self._known(digest_of(token), digest_of(own))

    def list_all(self) -> list[Token]:
        return [
            Token(record.name, record.role, record.created_at) for _, record in sorted(self._catalog.tokens.items())
        ]

    def create(self, new: NewToken) -> CreatedToken:
        """
        Raises:
            InvalidArgument: it is no valid name.
            Conflict: there is one of that name, or as many as there may be.
            RegistryUnavailable: it cannot be stored.
        """
        check_name("token", new.name)
        if new.name in self._catalog.tokens:
            raise Conflict(f"token {new.name!r} exists already: revoke it first, or choose another name")
        if len(self._catalog.tokens) >= MAX_TOKENS:
            raise Conflict(f"there are {MAX_TOKENS} tokens, and may be no more: revoke one first")
        token = new_token()
        record = TokenRecord(new.name, new.role, digest_of(token), time.time())
        self._catalog.commit(Put(record))
        return CreatedToken(record.name, record.role, record.created_at, token)

    def revoke(self, name: str) -> None:
        """
        Raises:
            NotFound: there is none of that name.
            RegistryUnavailable: it cannot be removed.
        """
        if name not in self._catalog.tokens:
            raise NotFound(f"token {name!r} does not exist: clipper token list tells those that do")
        self._catalog.commit(DeleteToken(name))

    def _known(self, asked: str, own: str) -> Role | None:
        """Compares with all, each in a time that does not depend on how much is equal."""
        role: Role | None = "admin" if hmac.compare_digest(asked, own) else None
        for record in self._catalog.tokens.values():
            if hmac.compare_digest(asked, record.digest):
                role = record.role
        return role


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
