"""Who may call this API: tokens besides the server's own."""

from litestar import Controller, delete, get, post
from litestar.params import JSONBody

from clipper.api.schemas import CreatedToken, NewToken, Token
from clipper.api.server.routes import Name, Port


class Tokens(Controller):
    path = "/tokens"
    tags = ("tokens",)

    @get(summary="List the tokens that were made: their names and roles")
    async def list_all(self, operations: Port) -> list[Token]:
        return await operations.list_tokens()

    @post(summary="Make a token; it is shown only now")
    async def create(self, operations: Port, data: JSONBody[NewToken]) -> CreatedToken:
        return await operations.create_token(data)

    @delete("/{token:str}", summary="Revoke a token, by its name")
    async def revoke(self, operations: Port, token: Name) -> None:
        await operations.revoke_token(token)
