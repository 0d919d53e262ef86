"""``python -m clipper.supervisor.managers.ray.orphans ADDRESS [OWNER]``: list, or end, what is left on a Ray cluster.

An owner is a home, or the servers that share a registry. Its actors go on while none of its servers is there, and only
an operator can tell that none will come back. The answer is a line of JSON. It runs where Ray is installed.
"""

import logging
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec
import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util import list_named_actors

from clipper.supervisor.managers.ray.messages import OWNER_PREFIX, WORKERS_SUFFIX, Owner

# The time for a worker to answer its open queries, which takes ten seconds at most.
GRACE_S = 11.0
END_TIMEOUT_S = 20.0
# At most this many models are shown: the first of a thousand suffice to recognise the owner.
SHOWN_MODELS = 10


def owners(named: Iterable[tuple[str, str]]) -> list[Owner]:
    """Return the owners of these actors, which are given by namespace and name."""
    models, workers = defaultdict[str, list[str]](list), Counter[str]()
    for namespace, name in named:
        if namespace.startswith(OWNER_PREFIX):
            owner = namespace.removesuffix(WORKERS_SUFFIX)
            if namespace == owner:
                models[owner].append(name.partition(":")[0])
            else:
                workers[owner] += 1
    return [
        Owner(owner, len(models[owner]), workers[owner], tuple(sorted(set(models[owner]))[:SHOWN_MODELS]))
        for owner in sorted({*models, *workers})
    ]


def main() -> None:
    address, *ended = sys.argv[1:]
    # Lines that Ray prints must not get into the answer.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # noqa: BLE001  # Ray has no common class for what can be wrong with an address
        sys.exit(f"Ray cannot be reached at {address}: {error}")
    named = [(one["namespace"], one["name"]) for one in list_named_actors(all_namespaces=True)]
    found = owners(named)
    if ended:
        found = [one for one in found if one.owner in ended]
        _end([(space, name) for space, name in named if space.removesuffix(WORKERS_SUFFIX) in ended])
    answer.write(msgspec.json.encode(found) + b"\n")
    answer.flush()
    os._exit(0)  # to leave the cluster in order takes Ray seconds


def _end(named: Iterable[tuple[str, str]]) -> None:
    actors = []
    for namespace, name in named:
        try:
            actors.append(ray.get_actor(name, namespace=namespace))
        except ValueError:  # the actor has ended since
            continue
    # Workers and replicas at once: the workers that query these replicas get no more snapshots, either.
    for method, arguments in (("stop", [GRACE_S]), ("clean_up", [])):
        _wait([getattr(actor, method).remote(*arguments) for actor in actors])
    for actor in actors:
        ray.kill(actor, no_restart=True)


def _wait(calls: list[Any]) -> None:
    for call in ray.wait(calls, num_returns=len(calls), timeout=END_TIMEOUT_S)[0] if calls else ():
        try:
            ray.get(call, timeout=END_TIMEOUT_S)
        except (RayError, GetTimeoutError):  # the process was never started, or its node is gone: the actor is killed
            continue


if __name__ == "__main__":
    main()
