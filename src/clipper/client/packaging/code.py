"""Finds the user's code for ``module:attribute``, and checks it without running it."""

import ast
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from clipper.client.packaging.artifact import Member
from clipper.errors import InvalidArgument, TooLarge

# A model's code is a few files beside it. More than this is a source tree or a home folder, passed by mistake.
MAX_CODE_FILES = 2_000
MAX_CODE_BYTES = 64 * 1024 * 1024
# No project has more folders than this; further ones are not searched.
MAX_FOLDERS = 10_000

_SKIPPED = frozenset({"__pycache__", "node_modules", "venv", "env", "site-packages", "build", "dist"})


def find_code(target: str, folder: Path) -> tuple[Member, ...]:
    """Return the folder's Python files, as members under ``code/``, after checking that ``target`` can be found.

    Args:
        target: ``module:attribute``.
        folder: its Python files are shipped, without hidden folders, virtual environments and caches.

    Raises:
        InvalidArgument: the module is neither in the folder nor installed, or does not define the attribute.
        TooLarge: the folder has too many Python files.
    """
    module, attribute = target.split(":")
    source = _source(module, folder)
    if source is not None:
        _check_defines(source, attribute.split(".")[0])
    elif module.endswith(".py"):
        raise InvalidArgument(f"{target!r} names a file: expected its module, {module[:-3]}:{attribute}")
    elif (folder / module.split(".")[0]).exists() or not _is_installed(module):
        raise InvalidArgument(
            f"there is no module {module!r} in {str(folder)!r}, nor is one installed: expected "
            f"{module.replace('.', '/')}.py; run the command in the folder that holds it"
        )
    return _members(folder)


def _source(module: str, folder: Path) -> Path | None:
    base = folder.joinpath(*module.split("."))
    candidates = (base / "__init__.py", base.with_name(base.name + ".py"))
    return next((path for path in candidates if path.is_file()), None)


def _is_installed(module: str) -> bool:
    """Whether the top package can be found. Looking for a module below it would import the package."""
    top = module.split(".")[0]
    return top != "__main__" and importlib.util.find_spec(top) is not None  # the container has another __main__


def _check_defines(source: Path, attribute: str) -> None:
    try:
        tree = ast.parse(source.read_bytes(), filename=str(source))
    except (SyntaxError, ValueError) as error:
        raise InvalidArgument(f"{str(source)!r} is not valid Python: {error}") from error
    names = set(_top_level_names(tree))
    # A star import, or a module's own __getattr__, may define any name.
    if attribute not in names and not names & {"*", "__getattr__"}:
        public = sorted(name for name in names if not name.startswith("_"))
        listed = ", ".join(public[:20]) or "no names"
        raise InvalidArgument(f"{str(source)!r} does not define {attribute!r}: it defines {listed}")


def _top_level_names(node: ast.AST) -> Iterator[str]:
    """Yield the names that a module defines, also in ``if``, ``try`` and ``with``, but not in functions and classes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield child.name
        elif isinstance(child, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in child.names)
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        else:
            yield from _top_level_names(child)


def _members(folder: Path) -> tuple[Member, ...]:
    members: list[Member] = []
    size_bytes = 0
    for path in _python_files(folder):
        size_bytes += path.stat().st_size
        members.append(Member(f"code/{path.relative_to(folder).as_posix()}", path))
        if len(members) > MAX_CODE_FILES or size_bytes > MAX_CODE_BYTES:
            raise TooLarge(_too_much(folder))
    return tuple(members)


def _python_files(folder: Path) -> Iterator[Path]:
    for count, (here, folders, files) in enumerate(os.walk(folder)):
        if count > MAX_FOLDERS:
            raise TooLarge(_too_much(folder))
        folders[:] = sorted(name for name in folders if _is_taken(Path(here, name)))
        yield from (Path(here, name) for name in sorted(files) if name.endswith(".py") and Path(here, name).is_file())


def _is_taken(folder: Path) -> bool:
    return not (
        folder.name.startswith(".")
        or folder.name in _SKIPPED
        or folder.name.endswith(".egg-info")
        or (folder / "pyvenv.cfg").exists()
        # A server's home contains the code of deployed models: an artifact of it would change with each deployment.
        or (folder / "registry.sqlite3").exists()
    )


def _too_much(folder: Path) -> str:
    return (
        f"{str(folder)!r} holds more code than a model has: expected at most {MAX_CODE_FILES} Python files, "
        f"{MAX_CODE_BYTES} bytes and {MAX_FOLDERS} folders; run the command in the folder that holds the model's code"
    )
