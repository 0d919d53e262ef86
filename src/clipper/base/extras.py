"""Which extras are installed, and what works without them."""

from functools import partial
from importlib.util import find_spec


def _is_installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:  # not even the package above it
        return False


# Whether an extra's library is there; it is not imported. That of Ray needs cryptography, too, to sign certificates.
has_cryptography = partial(_is_installed, "cryptography")
has_docker = partial(_is_installed, "docker")
has_grpc = partial(_is_installed, "ngh2")
has_otel = partial(_is_installed, "opentelemetry.proto")
has_ray = partial(_is_installed, "ray")


def why_no_manager(name: str, *, has_run_as: bool, has_ray_python: bool) -> str | None:
    """Why a server cannot deploy by the manager of that name; None if it can.

    Args:
        has_run_as: whether models shall run as a user of their own.
        has_ray_python: whether another interpreter connects to Ray.
    """
    if name == "ray" and has_run_as:
        return "on Ray, models run as the user of each node's Ray: give another manager, or no --run-as"
    if (name == "ray" and not (has_ray() or has_ray_python)) or (name == "docker" and not has_docker()):
        return f"needs the extra {name}: pip install 'clipper-serving[{name}]'"
    return None
