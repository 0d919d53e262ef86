"""Who may call the query port: keys of its clients."""

from typing import Any

from litestar import Controller, Request, delete, get, post
from litestar.params import JSONBody
from msgspec.structs import replace

from clipper.api.schemas import CreatedKey, Key, NewKey
from clipper.api.server.routes import Name, Port


class Keys(Controller):
    path = "/keys"
    tags = ("keys",)

    @get(summary="List the keys: their names, applications and limits")
    async def list_all(self, operations: Port, request: Request[Any, Any, Any]) -> list[Key]:
        keys = await operations.list_keys()
        if request.state.role == "admin":
            return keys
        # It is part of a hash: with it, a guess of a key that people made up can be checked without asking the server.
        return [replace(key, fingerprint=None) for key in keys]

    @post(summary="Make a key; it is shown only now")
    async def create(self, operations: Port, data: JSONBody[NewKey]) -> CreatedKey:
        return await operations.create_key(data)

    @delete("/{key:str}", summary="Revoke a key, by its name; answers once every worker refuses it")
    async def revoke(self, operations: Port, key: Name) -> None:
        await operations.revoke_key(key)
