"""Who may call the query port: keys of its clients."""

from litestar import Controller, delete, get, post
from litestar.params import JSONBody

from clipper.management.routes import Name, Port
from clipper.management.schemas import CreatedKey, Key, NewKey


class Keys(Controller):
    path = "/keys"
    tags = ("keys",)

    @get(summary="List the keys: their names, applications and limits")
    async def list_all(self, operations: Port) -> list[Key]:
        return await operations.list_keys()

    @post(summary="Make a key; it is shown only now")
    async def create(self, operations: Port, data: JSONBody[NewKey]) -> CreatedKey:
        return await operations.create_key(data)

    @delete("/{key:str}", summary="Revoke a key, by its name; answers once every worker refuses it")
    async def revoke(self, operations: Port, key: Name) -> None:
        await operations.revoke_key(key)
