"""Derives the resources and nodes to request from Ray from a version's spec."""

import ipaddress
import re

from clipper.errors import InvalidArgument
from clipper.settings.texts import checked_resources
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.launcher import Runnable
from clipper.supervisor.managers.ray.messages import Nodes, Placement

# Without ``cpus`` a replica's libraries compute in one thread.
DEFAULT_CPUS = 1.0
# Ray's names for its strategies. ``DEFAULT`` fills a node to half before it takes the next.
STRATEGIES = {"spread": "SPREAD", "pack": "DEFAULT"}
# Resources with an option of their own, by Ray's name.
_OWN_OPTIONS = {"CPU": "cpus", "GPU": "gpus", "memory": "memory", "object_store_memory": "memory"}
# The form of labels in Kubernetes, to which Ray holds its labels: a name may have a domain before it.
_LABEL_TEXT = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL = re.compile(rf"(?:[A-Za-z0-9][A-Za-z0-9.-]{{0,252}}/)?{_LABEL_TEXT}")
_LABEL_VALUE = re.compile(_LABEL_TEXT)


def placement_of(spec: VersionSpec) -> Placement:
    """Return the resources that each replica of a version takes of its node, and the suitable nodes."""
    return Placement(
        cpus=DEFAULT_CPUS if spec.cpus is None else spec.cpus,
        gpus=0.0 if spec.gpus is None else gpu_count(spec.gpus),
        memory_bytes=spec.memory_bytes or 0,
        resources=spec.resources,
        nodes=Nodes() if spec.placement is None else parse_nodes(spec.placement),
    )


def check_placement(asked: Runnable) -> None:
    """Raise InvalidArgument if Ray has no such placement."""
    if asked.gpus is not None:
        gpu_count(asked.gpus)
    if asked.gpu_memory_bytes is not None:
        raise InvalidArgument(
            "gpu_memory_bytes is not for the manager 'ray', which counts GPUs and not their memory: "
            "expected a part of one, such as gpus 0.5"
        )
    if asked.placement is not None:
        parse_nodes(asked.placement)
    for name in checked_resources(asked.resources):
        if name in _OWN_OPTIONS:
            raise InvalidArgument(f"the resource {name} has an option of its own: give {_OWN_OPTIONS[name]}")


def gpu_count(text: str) -> float:
    """Read a number of GPUs: Ray chooses which. Raises InvalidArgument if Ray would refuse it, or it is no number."""
    try:
        count = float(text)
    except ValueError:
        count = 0.0
    # Ray shares a single GPU among replicas, but assigns several only as whole GPUs.
    if not 0 < count <= 64 or (count > 1 and count != int(count)):
        raise InvalidArgument(
            f"gpus {text[:200]!r} is not valid for the manager 'ray', which chooses the GPUs: "
            "expected how many (1 to 64), or a part of one such as 0.5"
        )
    return count


def parse_nodes(text: str) -> Nodes:
    """Read ``spread`` or ``pack``, ``node=ADDRESS``, ``LABEL=VALUE``, or several of these, separated by commas.

    Raises InvalidArgument if the text is something else, or says the same thing twice.
    """
    strategy, address, labels = "", "", dict[str, str]()
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals and name in STRATEGIES and not strategy:
            strategy = STRATEGIES[name]
        elif name == "node" and equals and not address and _is_address(value):
            address = value
        elif name != "node" and _LABEL.fullmatch(name) and _LABEL_VALUE.fullmatch(value) and name not in labels:
            labels[name] = value
        else:
            raise InvalidArgument(
                f"placement {text[:200]!r} is not valid at {part[:100]!r}: expected spread or pack, node= and an "
                "address such as 10.0.0.2, labels such as zone=a, or several of these with commas, each once"
            )
    return Nodes(strategy or Nodes().strategy, address, labels)


def room_of(placement: Placement) -> str:
    """Describe a placement for people: its resources and its nodes."""
    amounts = [(placement.cpus, "CPU")] + ([(placement.gpus, "GPU")] if placement.gpus else [])
    parts = [f"{amount:g} {unit}{'' if amount == 1 else 's'}" for amount, unit in amounts]
    if placement.memory_bytes:
        parts.append(f"{placement.memory_bytes / 2**30:.2g} GiB of memory")
    parts += [f"{amount:g} {name}" for name, amount in placement.resources.items()]
    nodes = placement.nodes
    where = f" on the node {nodes.address}" if nodes.address else ""
    labels = ", ".join(f"{label}={value}" for label, value in nodes.labels.items())
    return ", ".join(parts) + where + (f" with the labels {labels}" if labels else "")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
