"""The client's methods for keys: who may call the query port."""

from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from clipper.api.schemas import CreatedKey, CreatedToken, Key, NewKey, NewToken, Token
from clipper.client.calls import Calls, part
from clipper.values.types import Role


class Keys(Calls):
    def create_key(
        self,
        name: str,
        *,
        applications: Sequence[str] = (),
        max_in_flight: int | None = None,
        max_per_second: float | None = None,
        key: str | None = None,
        replace: bool = False,
        expires_at: float | UnsetType | None = UNSET,
    ) -> CreatedKey:
        """Make a key. Only the answer contains it: the server keeps its digest.

        Args:
            applications: the applications that the key is for; empty means all.
            max_in_flight: how many queries may be in flight with it at once.
            max_per_second: how many queries with it are let in each second.
            key: the key itself, 32 to 512 letters, digits or ._~+/=-; None means that the server makes one.
            replace: take the place of the key of that name, if there is such a key.
            expires_at: when it is refused, in seconds since 1970; None means never. Without it a key that is
                replaced by itself, such as to change its limits, expires when it would have.
        """
        new = NewKey(name, tuple(applications), max_in_flight, max_per_second, key, replace, expires_at)
        return self._ask(CreatedKey, "POST", "/keys", new)

    def keys(self) -> list[Key]:
        return self._ask(list[Key], "GET", "/keys")

    def revoke_key(self, name: str) -> None:
        """Refuse the key from now on, also on open connections."""
        self._management.call("DELETE", f"/keys/{part(name)}")


class Tokens(Calls):
    """A server's tokens, except for its own token. These calls need a token of the role ``admin``."""

    def create_token(self, name: str, role: Role = "read", *, expires_at: float | None = None) -> CreatedToken:
        """Make a token. Only the answer contains it: the server keeps its digest.

        Args:
            expires_at: when it is refused, in seconds since 1970; None means never.
        """
        return self._ask(CreatedToken, "POST", "/tokens", NewToken(name, role, expires_at))

    def tokens(self) -> list[Token]:
        return self._ask(list[Token], "GET", "/tokens")

    def revoke_token(self, name: str) -> None:
        """Refuse the token from now on."""
        self._management.call("DELETE", f"/tokens/{part(name)}")
