"""``python -m clipper.supervisor.managers.ray.driver ADDRESS NAMESPACE``: a home's connection to a Ray cluster.

It reads requests from its standard input and writes replies to its standard output (``messages.py``), and ends when its
input does. It is a process of its own because Ray ends a process that has lost its cluster for a minute, and a server
must not end then; and so that the server's Python and packages need not be those of the cluster.
"""

import asyncio
import logging
import os
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

import msgspec
import ray
import ray._private.state
from ray.exceptions import ActorDiedError, RayActorError
from ray.util import list_named_actors

from clipper.supervisor.managers.ray import messages
from clipper.supervisor.managers.ray.actor import ReplicaActor
from clipper.supervisor.managers.ray.worker_actor import WorkerActor
from clipper.supervisor.managers.worker_host import ClusterNode

# How many methods of an actor may run at once: one of them waits for the end of its container.
CONCURRENCY = 16
# Artifacts are sent in pieces of this size, one at a time, so this much of Ray's object store is enough.
CHUNK_BYTES = 4 * 1024 * 1024
# A replica takes this share of a node's own resource, of which the node has 1: room for more replicas than any node
# has.
NODE_SHARE = 0.0001

_REQUEST: "msgspec.json.Decoder[messages.Request]" = msgspec.json.Decoder(messages.Request)


class Driver:
    """Carries out requests, each as a task of its own."""

    def __init__(self, namespace: str, reply: Callable[[messages.Reply], None]) -> None:
        self._namespace = namespace
        self._reply = reply
        self._actor_classes: dict[messages.Kind, Any] = {
            "replica": ray.remote(ReplicaActor),
            "worker": ray.remote(WorkerActor),
        }
        self._handles: dict[str, Any] = {}

    async def handle(self, request: messages.Request) -> None:
        try:
            self._reply(messages.Answer(request.number, await self._value(request)))
        except (ActorDiedError, _NoActor) as error:
            self._reply(messages.Gone(request.number, _first_line(error)))
        except RayActorError as error:  # the actor cannot be reached, but may be well
            self._reply(messages.Failed(request.number, _first_line(error), is_unreachable=True))
        except Exception as error:  # noqa: BLE001  # whatever it is, the server waits for a reply
            self._reply(messages.Failed(request.number, _first_line(error)))

    async def _value(self, request: messages.Request) -> Any:
        match request:
            case messages.Create(_, actor, placement, kind):
                return await self._create(actor, placement, kind)
            case messages.Call(_, actor, method, arguments):
                return await getattr(self._handle(actor), method).remote(*arguments)
            case messages.Ship(_, actor, digest, folder):
                return await self._ship(actor, digest, folder)
            case messages.Kill(_, actor):
                with suppress(_NoActor):
                    handle = self._handle(actor)
                    del self._handles[actor]
                    ray.kill(handle, no_restart=True)
                return None
            case messages.List():
                named = list_named_actors(all_namespaces=True)
                return [one["name"] for one in named if one["namespace"] == self._namespace]
            case messages.ListNodes():
                return msgspec.to_builtins(await asyncio.to_thread(_nodes))

    async def _create(self, actor: str, placement: messages.Placement, kind: messages.Kind) -> Any:
        nodes = placement.nodes
        options = {
            "name": actor,
            "namespace": self._namespace,
            "lifetime": "detached",
            "max_restarts": 0,
            "max_concurrency": CONCURRENCY,
            "num_cpus": placement.cpus,
            "num_gpus": placement.gpus,
            "memory": placement.memory_bytes or None,
            "scheduling_strategy": nodes.strategy,
            # Only the node at this address has the resource, so a replica can wait until the node returns: Ray's ids
            # change.
            "resources": placement.resources | ({f"node:{nodes.address}": NODE_SHARE} if nodes.address else {}),
        }
        if nodes.labels:  # a Ray before 2.49 does not know the option
            options["label_selector"] = nodes.labels
        handle = self._handles[actor] = self._actor_classes[kind].options(**options).remote()
        return await handle.describe.remote()

    def _handle(self, actor: str) -> Any:
        if actor not in self._handles:
            try:
                self._handles[actor] = ray.get_actor(actor, namespace=self._namespace)
            except ValueError as error:
                raise _NoActor(f"Ray has no actor {actor}") from error
        return self._handles[actor]

    async def _ship(self, actor: str, digest: str, folder: str) -> None:
        handle = self._handle(actor)
        with tempfile.TemporaryFile() as packed:
            await asyncio.to_thread(_pack, folder, packed)
            packed.seek(0)
            while chunk := await asyncio.to_thread(packed.read, CHUNK_BYTES):
                await handle.receive.remote(digest, chunk)
        await handle.receive.remote(digest, b"")


class _NoActor(Exception):
    pass


def main() -> None:
    address, namespace = sys.argv[1:]
    # Lines that Ray and its libraries print must not get among the replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    replying = threading.Lock()

    def reply(reply: messages.Reply) -> None:
        with replying:
            replies.write(messages.line(reply))
            replies.flush()

    requests: asyncio.Queue[messages.Request] = asyncio.Queue()
    loop = asyncio.new_event_loop()
    # A thread, because Ray's own calls may block for a minute, but this process has to end with its input.
    threading.Thread(target=_read, args=(loop, requests), daemon=True).start()
    try:
        ray.init(address, namespace=namespace, log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:  # noqa: BLE001  # Ray has no common class for what can be wrong with an address
        reply(messages.Refused(_first_line(error)))
        os._exit(1)
    reply(messages.Connected())
    loop.run_until_complete(_serve(Driver(namespace, reply), requests))


def _read(loop: asyncio.AbstractEventLoop, requests: "asyncio.Queue[messages.Request]") -> None:
    for text in sys.stdin.buffer:
        loop.call_soon_threadsafe(requests.put_nowait, _REQUEST.decode(text))
    # Detached actors continue. An orderly exit from the cluster could take longer than the other end waits.
    os._exit(0)


async def _serve(driver: Driver, requests: "asyncio.Queue[messages.Request]") -> None:
    running = set()
    while True:
        task = asyncio.create_task(driver.handle(await requests.get()))
        running.add(task)
        task.add_done_callback(running.discard)


def _nodes() -> list[ClusterNode]:
    own = ray.get_runtime_context().get_node_id()
    # This is no part of Ray's public interface, but Ray Serve uses it, too. With a Ray that lacks it, no node drains.
    draining: Collection[str] = getattr(ray._private.state.state, "get_draining_nodes", dict)()
    return [
        ClusterNode(one["NodeManagerAddress"], one["Alive"], one["NodeID"] == own, one["NodeID"] in draining)
        for one in ray.nodes()
    ]


def _pack(folder: str, target: Any) -> None:
    with tarfile.open(fileobj=target, mode="w") as archive:
        archive.add(folder, arcname=".")


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "cause", None)
    return str(cause or error).strip().splitlines()[0] if str(cause or error).strip() else repr(error)


if __name__ == "__main__":
    main()
