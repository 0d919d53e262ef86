"""``python scripted_driver.py FOLDER ADDRESS NAMESPACE``: a driver whose actors are in a file, and none of Ray.

Its workers are no processes: they run until they are told to stop, or until the file ``<actor>.ended`` is there. While
the file ``<actor>.lost`` is there, an actor answers nothing, and counts there what it is asked.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from clipper.control.authority import make_request
from clipper.supervisor.managers.ray.messages import (
    Answer,
    Call,
    Connected,
    Create,
    Gone,
    Kill,
    List,
    ListNodes,
    Reply,
    Request,
    Ship,
    WorkerLaunch,
    line,
)

FOLDER = Path(sys.argv[1])
ACTORS = FOLDER / "actors.json"


def actors() -> dict[str, Any]:
    return dict(json.loads(ACTORS.read_text())) if ACTORS.exists() else {}


def write(known: dict[str, Any]) -> None:
    ACTORS.with_suffix(".new").write_text(json.dumps(known))
    ACTORS.with_suffix(".new").replace(ACTORS)


def update(actor: str, **fields: Any) -> None:
    known = actors()
    write(known | {actor: known.get(actor, {}) | fields})


async def value(request: Request) -> Any:
    match request:
        case Create(_, actor, placement, kind):
            update(actor, node=placement.nodes.address, kind=kind, cpus=placement.cpus, had=[])
            return {"node": f"id of {placement.nodes.address}", "host": placement.nodes.address, "build": "b1"}
        case List():
            return list(actors())
        case ListNodes():
            return [{"address": "10.0.0.1", "is_up": True, "is_own": True}]
        case Kill(_, actor):
            write({name: one for name, one in actors().items() if name != actor})
            return None
        case Ship(_, actor, digest, folder):
            update(actor, had=[*actors()[actor]["had"], digest], folder=folder)
            return None
        case Call(_, actor, method, arguments):
            return await called(actor, method, arguments)


async def called(actor: str, method: str, arguments: list[Any]) -> Any:
    one = actors()[actor]
    if method != "ended" and (lost := FOLDER / f"{actor}.lost").exists():
        lost.write_text(f"{lost.read_text()}{method}\n")
        await asyncio.Event().wait()
    match method:
        case "request_identity":
            return make_request()[1].decode()
        case "take_identity":
            update(actor, certificate=arguments[0], authority=arguments[1])
        case "launch":
            launch = msgspec.json.decode(arguments[0], type=WorkerLaunch)
            if "fails" in launch.config:
                return {"type": "not launched", "reason": "no port is free"}
            extra = launch.note | {"control": f"tcp:{one['node']}:{arguments[1][0]}"}
            record = {"name": launch.name, "pid": 77, "start_time": 1, "argv": [], "extra": extra}
            update(actor, launched={"type": "worker launched", "node": f"id of {one['node']}", "record": record})
            return actors()[actor]["launched"]
        case "noted":
            return one.get("launched")
        case "is_up":
            return not (FOLDER / f"{actor}.ended").exists()
        case "has_artifact":
            return arguments[0] in one["had"]
        case "ended":
            while not (FOLDER / f"{actor}.ended").exists():
                await asyncio.sleep(0.02)
            return "exited with code 3"
        case "stop":
            return "was stopped"
    return None


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    def reply(one: Reply) -> None:
        sys.stdout.buffer.write(line(one))
        sys.stdout.buffer.flush()

    async def handle(request: Request) -> None:
        try:
            reply(Answer(request.number, await value(request)))
        except KeyError as error:
            reply(Gone(request.number, f"Ray has no actor {error}"))

    reply(Connected())
    running = set()
    while text := await reader.readline():
        running.add(loop.create_task(handle(msgspec.json.decode(text, type=Request))))


if __name__ == "__main__":
    asyncio.run(main())
