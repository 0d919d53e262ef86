"""The command line of a container; see proto/container-protocol.md, "How a container is started"."""

from collections.abc import Mapping
from pathlib import Path

from clipper.managers.launcher import ContainerNote

# Of a jar's bound on memory: the rest is for what Java has outside of its heap.
JAVA_HEAP_SHARE = 0.75


def container_argv(note: ContainerNote, artifact: Path, python: str) -> list[str]:
    """What runs a replica: its own program, or Clipper's runtime on the interpreter ``python``.

    ``artifact`` is where the version's is unpacked.
    """
    spec = note.spec
    if spec.loader == "binary":
        return program_argv(artifact / spec.target, spec.memory_bytes) + program_options(note, artifact)
    given = {
        "--artifact": artifact,
        "--loader": spec.loader,
        "--target": spec.target,
        "--data": spec.data,
        "--input-type": spec.input_type,
        "--framework": spec.framework,
        "--output": spec.output,
        "--memory-bytes": spec.memory_bytes,
    }
    return [python, "-m", "clipper.runtime", *_common(note), *_given(given)]


def program_argv(program: Path, memory_bytes: int | None) -> list[str]:
    """What runs a program. Java is told how much memory it may use, since it takes what it is told."""
    if program.suffix != ".jar":
        return [str(program)]
    heap = [] if memory_bytes is None else [f"-Xmx{int(memory_bytes * JAVA_HEAP_SHARE)}"]
    return ["java", *heap, "-jar", str(program)]


def program_options(note: ContainerNote, artifact: Path) -> list[str]:
    """What a program is told, which knows nothing of artifacts."""
    data = None if note.spec.data is None else artifact / note.spec.data
    return [*_common(note), *_given({"--data": data, "--input-type": note.spec.input_type})]


def _common(note: ContainerNote) -> list[str]:
    return ["--listen", note.listen, "--model", note.model, "--version", note.version]


def _given(options: Mapping[str, object]) -> list[str]:
    return [text for option, value in options.items() if value is not None for text in (option, str(value))]
