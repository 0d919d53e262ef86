"""The client's methods for tokens: who else may call the management API."""

from clipper.client.calls import Calls, part
from clipper.management.schemas import CreatedToken, NewToken, Token
from clipper.types import Role


class Tokens(Calls):
    """A server's tokens, besides its own. All these calls need a token of the role ``admin``."""

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
