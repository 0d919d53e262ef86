"""Turns a model file or folder, a Python object, or ``module:attribute`` into an artifact."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from clipper.client.packaging import stores
from clipper.client.packaging.addresses import read_address
from clipper.client.packaging.artifact import Artifact, Contents, Member, pack
from clipper.client.packaging.code import find_code
from clipper.client.packaging.frameworks import ZIP, begin_of, recognise
from clipper.client.packaging.needs import needs_of, needs_of_object
from clipper.client.packaging.objects import OBJECT_NAME, object_members
from clipper.client.packaging.requirements_file import requirements_member
from clipper.errors import InvalidArgument
from clipper.settings.home import find_home
from clipper.settings.secret_files import SecretFiles
from clipper.settings.variables import read_env_file
from clipper.values.types import Framework

# python: Clipper's own runtime loads the model. binary: the model is a program that speaks the container protocol.
# image: a Docker image with such a program, which the model's machine fetches.
Language = Literal["python", "binary", "image"]

_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


# A class with its weights. Only the framework's name tells it from a class that reads its data itself.
_OF_CODE: Framework = "torch_state"


def package(
    model: object,
    *,
    data: Path | str | None = None,
    folder: Path | None = None,
    language: Language = "python",
    framework: Framework | None = None,
    requirements: Path | str | Sequence[str] | None = None,
    credentials: Mapping[str, str] | str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Artifact:
    """Pack a model. The caller closes the artifact (``with``), which removes its file.

    Args:
        model: the path of a model file or folder (``str`` or ``Path``), its address in a store, which ``stores``
            fetches, ``"module:attribute"``, or any other Python object: a fitted estimator, a function over a batch, an
            object with ``predict_batch``.
        data: a file, folder or address that a ``module:Class`` gets as ``model_data``, and a program as ``--data``; or
            the second file of a model that has two.
        folder: the folder with the code of ``module:attribute``, and with the files that lines of requirements include;
            the current one if None.
        language: ``binary``: ``model`` is the path of a program, an executable or a jar.
        framework: the framework of the file or folder; recognised if None. ``torch_state``: ``model`` is
            ``module:Class``, and ``data`` its state dict.
        requirements: the path of a requirements file, or its lines: all that the model needs besides numpy.
        credentials: variables that a store's library reads while the model is fetched, or the name of a secret of this
            machine with lines ``NAME=VALUE``; None means what is set already.
        progress: called with texts while a model is fetched.

    Raises:
        InvalidArgument: the model cannot be read, is empty or of an unknown format, or its code cannot be found.
        TooLarge: it exceeds a limit.
        NotFound, Unavailable: its store does not have it, or cannot be used.
    """
    found = {}
    for key, text in (("model", model), ("data", data)):
        if isinstance(text, str) and language != "image" and (address := read_address(text)) is not None:
            found[key] = stores.fetch(address, _credentials(credentials), progress)
    model = found["model"].path if "model" in found else model
    data = found["data"].path if "data" in found else data
    contents = _contents(model, None if data is None else Path(data), folder or Path.cwd(), language, framework)
    artifact = pack(contents if requirements is None else _with_requirements(contents, requirements, folder))
    return replace(
        artifact,
        source=" ".join(one.source for one in found.values()) or None,
        warning="; ".join(one.warning for one in found.values() if one.warning) or None,
    )


def look(model: str, credentials: Mapping[str, str] | str | None = None) -> str:
    """Return a text that changes with the content of a model's address, without fetching it. Raises InvalidArgument if
    ``model`` is no address, or one whose content never changes, or whose store does not tell; NotFound or Unavailable
    if its store does not have it, or cannot be used.
    """
    address = read_address(model)
    if address is None:
        raise InvalidArgument(f"{model} is no address of a store: only these can be followed")
    return stores.look(address, _credentials(credentials))


def _credentials(given: Mapping[str, str] | str | None) -> Mapping[str, str]:
    if not isinstance(given, str):
        return given or {}
    try:
        return read_env_file(SecretFiles(find_home(), os.environ).value(given))
    except InvalidArgument as error:
        raise InvalidArgument(f"the secret {given} has to have lines NAME=VALUE: {error}") from error


def _with_requirements(contents: Contents, requirements: Path | str | Sequence[str], folder: Path | None) -> Contents:
    if contents.loader in ("binary", "image"):
        raise InvalidArgument("requirements are for models that Clipper's own runtime loads: a program has its own")
    member = requirements_member(requirements, folder)
    return replace(contents, members=(*contents.members, member), requirements=member.name)


def _contents(
    model: object, data: Path | None, folder: Path, language: Language, framework: Framework | None
) -> Contents:
    if language != "python":
        _refuse_framework(framework, "a program")
    if language == "binary":
        return _program_contents(model, data)
    if language == "image":
        return _with_data(Contents("image", str(model), members=()), data)
    if isinstance(model, str) and _TARGET.fullmatch(model):
        return _import_contents(model, data, folder, framework)
    if isinstance(model, (str, Path)):
        return _saved_contents(Path(model), data, framework)
    _refuse_framework(framework, "a Python object")
    if data is not None:
        raise InvalidArgument("data is for module:attribute, programs and Caffe: an object contains its data")
    members = object_members(model)
    return Contents("file", OBJECT_NAME, framework="pickle", needs=needs_of_object(members), members=members)


def _refuse_framework(framework: Framework | None, what: str) -> None:
    if framework is not None:
        raise InvalidArgument(f"framework {framework} is for model files and folders: leave it out for {what}")


def package_code(targets: Sequence[str], folder: Path | None = None) -> Artifact | None:
    """Pack the code of an application's own policy and loss, each ``module:attribute``. The caller closes the artifact.

    Returns None if the folder (the current one if None is given) has no Python files: then all code is installed.
    Raises InvalidArgument if a target is not of that form, or its code cannot be found; TooLarge if the folder has too
    many Python files.
    """
    folder = folder or Path.cwd()
    for target in targets:
        if not _TARGET.fullmatch(target):
            raise InvalidArgument(f"{target!r} is not module:attribute, such as policies:Cautious")
    members: tuple[Member, ...] = ()
    for target in targets:
        # find_code returns the whole folder each time; only its check depends on the target.
        members = find_code(target, folder)
    return pack(Contents("import", targets[0], members=members)) if members else None


def _program_contents(model: object, data: Path | None) -> Contents:
    if not isinstance(model, (str, Path)):
        raise InvalidArgument(
            f"model is of type {type(model).__name__}: expected the path of a program, because language is binary"
        )
    program = program_member(Path(model))
    return _with_data(Contents("binary", program.name, members=(program,)), data)


def _import_contents(target: str, data: Path | None, folder: Path, framework: Framework | None) -> Contents:
    if framework != _OF_CODE:
        _refuse_framework(framework, "code")
    elif data is None:
        raise InvalidArgument(f"framework {framework} needs the state dict of {target}: give its file with --data")
    needs = needs_of(framework, Path(data)) if framework and data else ()
    members = find_code(target, folder)
    return _with_data(Contents("import", target, framework=framework, needs=needs, members=members), data)


def _saved_contents(path: Path, data: Path | None, framework: Framework | None) -> Contents:
    if framework == _OF_CODE:
        raise InvalidArgument(f"framework {framework} needs a class: deploy module:Class with --data {path}")
    known = framework or recognise(path)
    if data is not None and known != "caffe":
        raise InvalidArgument(f"data is for module:attribute, programs and Caffe: a model of {known} contains its data")
    if known == "caffe" and data is None and path.is_file():
        raise InvalidArgument(f"{path.name} is the network without its weights: give its .caffemodel with --data")
    members = _members(path, path.resolve().name, f"model at {str(path)!r}")
    needs = needs_of(known, path)
    return _with_data(Contents("file", path.resolve().name, framework=known, needs=needs, members=members), data)


def _with_data(contents: Contents, data: Path | None) -> Contents:
    if data is None:
        return contents
    name = f"data/{data.resolve().name}"
    return replace(contents, members=contents.members + _members(data, name, f"data at {str(data)!r}"), data=name)


def _members(path: Path, name: str, what: str) -> tuple[Member, ...]:
    """A file, or all files of a folder, under ``name`` in the artifact."""
    if path.is_file():
        return (Member(name, path),)
    if not path.is_dir():
        raise InvalidArgument(f"there is no {what}: expected a file or folder")
    files = [file for file in path.rglob("*") if file.is_file()]
    if not files:
        raise InvalidArgument(f"the {what} is a folder without files")
    return tuple(Member(f"{name}/{file.relative_to(path).as_posix()}", file) for file in files)


def program_member(path: Path) -> Member:
    """Return the program as a member of an artifact, under its own name. ``path``: an ELF executable, a script whose
    first line names its interpreter, or a jar with a main class. Raises InvalidArgument if it cannot be read, or is not
    one of these.
    """
    begin = begin_of(path, "program")[:4]
    is_jar = path.suffix == ".jar"
    if not (begin.startswith(ZIP) if is_jar else begin.startswith((b"\x7fELF", b"#!"))):
        expected = "a jar" if is_jar else "an ELF executable, a script that begins with #!, or a .jar"
        raise InvalidArgument(f"{str(path)!r} is not a program: expected {expected}, but it begins with {begin!r}")
    return Member(path.name, path, is_program=True)
