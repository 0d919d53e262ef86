"""The command line of a container; see proto/container-protocol.md, "How a container is started"."""

from collections.abc import Mapping
from pathlib import Path

from clipper.supervisor.managers.launcher import ContainerNote

# The parts of the package that a container's Python imports, as paths in it.
RUNTIME_PARTS = (
    "__init__.py",
    "base/__init__.py",
    "base/log_format.py",
    "base/oom.py",
    "errors.py",
    "model",
    "runtime.py",
    "values/__init__.py",
    "values/output_arrays.py",
    "values/types.py",
)
# How much of a jar's memory is for its heap. The rest is for what Java keeps outside of it.
JAVA_HEAP_SHARE = 0.75


def container_argv(note: ContainerNote, artifact: Path, python: str) -> list[str]:
    """What runs a replica: its own program, or Clipper's runtime on the interpreter ``python``.

    ``artifact`` is where the version's artifact is unpacked.
    """
    spec = note.spec
    if spec.loader == "binary":
        return program_argv(artifact / spec.target, spec.memory_bytes) + program_options(note, artifact)
    options = {
        "--artifact": artifact,
        "--loader": spec.loader,
        "--target": spec.target,
        "--data": spec.data,
        "--input-type": spec.input_type,
        "--framework": spec.framework,
        "--output": spec.output,
        "--memory-bytes": spec.memory_bytes,
        "--max-output-bytes": note.max_output_bytes,
    }
    if note.log_format != "text":
        options |= {"--log-format": note.log_format, "--replica": note.id}
    return [python, "-m", "clipper.model.runtime", *_options(note, options)]


def program_argv(program: Path, memory_bytes: int | None) -> list[str]:
    """What runs a program. Java is given the size of its heap, because it does not look for a limit."""
    if program.suffix != ".jar":
        return [str(program)]
    heap = [] if memory_bytes is None else [f"-Xmx{int(memory_bytes * JAVA_HEAP_SHARE)}"]
    return ["java", *heap, "-jar", str(program)]


def program_options(note: ContainerNote, artifact: Path) -> list[str]:
    """The options of a program, which knows nothing of artifacts."""
    data = None if note.spec.data is None else artifact / note.spec.data
    return _options(note, {"--data": data, "--input-type": note.spec.input_type})


def _options(note: ContainerNote, further: Mapping[str, object]) -> list[str]:
    """The options that every container gets, and those of the others that have a value."""
    common = ["--listen", note.listen, "--model", note.model, "--version", note.version]
    return common + [text for option, value in further.items() if value is not None for text in (option, str(value))]
