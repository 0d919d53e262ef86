"""The offered services, read from ``protos/``."""

from importlib.resources import files

from clipper.worker.frontend.rpc.schema import File, parse

_FOLDER = files("clipper.worker.frontend.rpc") / "protos"


def _read(name: str, file: str) -> File:
    return parse(name, (_FOLDER / file).read_text())


OPEN_INFERENCE = _read("open_inference.proto", "open_inference.proto")
CLIPPER = _read("clipper.proto", "clipper.proto")
HEALTH = _read("grpc/health/v1/health.proto", "health.proto")
REFLECTION = _read("grpc/reflection/v1/reflection.proto", "reflection.proto")
# The same service under the name that older clients use.
REFLECTION_ALPHA = parse(
    "grpc/reflection/v1alpha/reflection.proto",
    (_FOLDER / "reflection.proto").read_text().replace("grpc.reflection.v1", "grpc.reflection.v1alpha"),
)
ALL = (OPEN_INFERENCE, CLIPPER, HEALTH, REFLECTION, REFLECTION_ALPHA)
