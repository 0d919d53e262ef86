"""A server with many models, for its pages, in memory: what its operations answer is of the API's own types."""

import time

import msgspec

from clipper.api.schemas import Application, Replica, Version
from clipper.settings.application import Configured, Link
from clipper.settings.version import Batching
from tests.memory_operations import LOG_TAIL, MemoryOperations

# A model's author can write this text anywhere; it must not run in a reader's browser.
HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


def populate(operations: MemoryOperations, count: int) -> None:
    """Give it ``count`` models, each with two versions and an application; the first model's newest version failed."""
    for number in range(count):
        name = f"model-{number:04}"
        operations.versions[name] = {each: _version(name, each, number) for each in ("1", "2")}
        operations.current[name], operations.previous[name] = ("1", None) if number == 0 else ("2", "1")
        app = f"app-{number:04}"
        operations.applications[app] = Application(
            name=app,
            input_type="float64[4]" if number % 2 else "string",
            slo_ms=20.0,
            policy=Configured("weighted" if number % 2 else "exp3"),
            links=(Link(name),),
            loss=Configured("zero_one"),
            half_life=1000,
            default_output=None,
        )


def crash(operations: MemoryOperations, model: str, version: str, ready: int) -> None:
    """Have one replica of a version crash each time it starts, beside ``ready`` others."""
    found = operations.versions[model][version]
    replicas = [
        msgspec.structs.replace(found.replicas[0], id=f"{model}:{version}#{number}") for number in range(ready + 1)
    ]
    crashing = msgspec.structs.replace(
        replicas[0], state="crash_loop", pid=None, restarts=7, last_error="its process exited with code 7"
    )
    operations.versions[model][version] = msgspec.structs.replace(
        found, replicas=(crashing, *replicas[1:]), replicas_wanted=ready + 1
    )


def _version(model: str, version: str, number: int) -> Version:
    is_failed = number == 0 and version == "2"
    id_ = f"{model}:{version}#1"
    replica = Replica(id_, model, version, "ready", 1000 + number, 0, None, 64, f"{model}.log")
    return Version(
        model=model,
        version=version,
        state="failed" if is_failed else "ready",
        current=(version == "1") == (number == 0),
        input_type="float64[4]",
        runtime="python",
        batching=Batching(),
        cache=True,
        replicas_wanted=1,
        replicas=() if is_failed else (replica,),
        created_at=time.time() - 60 * number,
        last_error=f"it ended: {HOSTILE}" if is_failed else None,
        log_tail=(*LOG_TAIL, HOSTILE) if is_failed else (),
        description=HOSTILE if number == 0 else None,
    )
