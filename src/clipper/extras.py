"""Which extras are installed, and what works without them."""

from importlib.util import find_spec


def has_otel() -> bool:
    """Whether the library of the extra ``otel`` is there; it is not imported."""
    try:
        return find_spec("opentelemetry.proto") is not None
    except ModuleNotFoundError:  # not even the package above it
        return False


def has_ray() -> bool:
    """Whether the library of the extra ``ray`` is there; it is not imported."""
    return find_spec("ray") is not None


def has_cryptography() -> bool:
    """Whether the other library of the extra ``ray``, which signs certificates, is there; it is not imported."""
    return find_spec("cryptography") is not None


def has_docker() -> bool:
    """Whether the library of the extra ``docker`` is there; it is not imported."""
    return find_spec("docker") is not None


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


def has_grpc() -> bool:
    """Whether the library of the extra ``grpc`` is there; it is not imported."""
    return find_spec("ngh2") is not None
