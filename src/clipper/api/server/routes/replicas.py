"""Replicas: one model process each."""

from litestar import Controller, get

from clipper.api.schemas import Replica
from clipper.api.server.routes import Name, Names, Port


class Replicas(Controller):
    path = "/replicas"
    tags = ("replicas",)

    @get(summary="List the replicas, or those of the models named")
    async def list_all(self, operations: Port, model: Names = None) -> list[Replica]:
        return await operations.list_replicas(model)

    @get("/{replica:str}", summary="Show a replica, by its id with '#' written as %23")
    async def show(self, operations: Port, replica: Name) -> Replica:
        return await operations.get_replica(replica)
