"""Write the tree of pages that the site is built from: ``python scripts/docs_tree.py FOLDER``. `make docs` does.

Pages of docs/ are written for readers of the repository, so they link ``../proto/…`` and ``../README.md``. The site has
whatever a page links, and its links lead there: docs/ is the root of the site, README its first page, and everything
else is where the repository has it. Nothing here is particular to the program that makes HTML of the tree.
"""

import json
import posixpath
import re
import shutil
import sys
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from management_page import page as management_page

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "mkdocs.yml"
# Pages that follow from docstrings and descriptions.
GENERATED = ROOT / "scripts" / "docs_pages"
# Where pages come that mkdocs.yml does not place.
UNPLACED = "How-to"
FIRST = "README.md"
# Pages and folders that few readers look for, and that would stand before what most look for: the site's search leaves
# them out.
NOT_SEARCHED = (
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/paper.md",
    "docs/internals/",
    "src/",
    "deploy/",
)
_NOT_SEARCHED_HEAD = "---\nsearch:\n  exclude: true\n---\n\n"
# The site has a page in place of a notebook, with its code, its outputs as text, and its pictures as files.
_NOTEBOOK = ".ipynb"
# The site's page for a folder that has no README.
_LIST = "index.md"
# A link's end, except of a link to another site or within the page: the path and the anchor.
_LINK = re.compile(r"\]\((?![a-z]+:|#|/)([^)#\s]+)(#[^)\s]*)?\)")
# A terminal's colours, which a notebook shows.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def with_links(text: str, replace: Callable[[re.Match[str]], str]) -> str:
    """Return a page in which ``replace`` has written the end of each link. Code is left as it is."""
    made, last = [], 0
    for code in _CODE.finditer(text):
        made += [_LINK.sub(replace, text[last : code.start()]), code[0]]
        last = code.end()
    return "".join([*made, _LINK.sub(replace, text[last:])])


def target(page: str, link: str) -> str:
    """Return the file of the repository that a page's link leads to; for a folder, its README or its list of files."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    if not (ROOT / path).is_dir():
        return path
    readme = f"{path}/README.md"
    return readme if (ROOT / readme).exists() else f"{path}/{_LIST}"


def files_below(folder: str) -> list[str]:
    """Return the files of a folder of the repository and of those in it."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.*") if path.is_file())


def linked(page: str) -> set[str]:
    """Return the files of the repository that a page of it links."""
    if posixpath.basename(page) == _LIST:
        return set()
    found: set[str] = set()

    def note(link: re.Match[str]) -> str:
        found.add(target(page, link[1]))
        return link[0]

    with_links((ROOT / page).read_text(), note)
    return found


def all_files() -> list[str]:
    """Return README, the pages of docs/, and what these and the pages among it link, as paths in the repository.

    A link to a file that is missing is left to who builds the site, who names it.
    """
    found: set[str] = set()
    new = {FIRST, *(page.relative_to(ROOT).as_posix() for page in [*ROOT.glob("docs/*.md"), *GENERATED.glob("*.md")])}
    while new:
        found |= new
        new = {path for page in new if page.endswith(".md") for path in linked(page)} - found
        folders = {posixpath.dirname(path) for path in new if posixpath.basename(path) == _LIST}
        new |= {path for folder in folders for path in files_below(folder)} - found
        new = {path for path in new if (ROOT / path).is_file() or posixpath.dirname(path) in folders}
    return sorted(found)


def site_path(path: str) -> str:
    """Return where the site has a file of the repository."""
    if path == FIRST:
        return "index.md"
    path = re.sub(rf"{re.escape(_NOTEBOOK)}$", ".md", path)
    return path.removeprefix("docs/").removeprefix("scripts/docs_pages/")


def rewritten(path: str) -> str:
    """Return a page or notebook of the repository as a page with links as the site has them."""
    here = posixpath.dirname(site_path(path)) or "."

    def replace(link: re.Match[str]) -> str:
        return f"]({posixpath.relpath(site_path(target(path, link[1])), here)}{link[2] or ''})"

    if posixpath.basename(path) == _LIST:
        folder = posixpath.dirname(path)
        return f"# {folder}\n\n" + "".join(
            f"- [{file}]({posixpath.relpath(file, folder)})\n" for file in files_below(folder)
        )
    text = (ROOT / path).read_text()
    return with_links(notebook_text(text, posixpath.basename(path)) if path.endswith(_NOTEBOOK) else text, replace)


def pictures(notebook: str, name: str) -> dict[str, bytes]:
    """Return the pictures among a notebook's outputs, by the names of their files beside its page."""
    outputs = [output for cell in json.loads(notebook)["cells"] for output in cell.get("outputs", [])]
    encoded = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    return {f"{name.removesuffix(_NOTEBOOK)}-{n}.png": b64decode("".join(png)) for n, png in enumerate(encoded, 1)}


def notebook_text(notebook: str, name: str) -> str:
    """Return a notebook as a page of texts, code and outputs. The file ``name`` lies beside the page."""
    parts, files = [], iter(pictures(notebook, name))
    for cell in json.loads(notebook)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                parts.append(f"![The picture that this code draws]({next(files)})")
            elif text := _COLOURS.sub("", "".join(data.get("text/plain", ""))).rstrip():
                parts.append(f"```text\n{text}\n```")
    title, _, rest = parts[0].partition("\n")
    parts[0] = f'{title}\n\n<a href="{name}" download>Download the notebook</a>\n{rest}'
    return "\n\n".join(parts) + "\n"


def placed(entry: Any) -> set[str]:
    """Return the pages of an entry of the navigation: a path, a title with its entry, or a list of entries."""
    if isinstance(entry, str):
        return {entry}
    return {path for each in (entry if isinstance(entry, list) else entry.values()) for path in placed(each)}


def with_navigation(settings: dict[str, Any], pages: set[str]) -> dict[str, Any]:
    """Return the settings with a place for each page of docs/: ``UNPLACED`` for one that no section names."""
    rest = sorted(pages - placed(settings["nav"]))
    sections = [
        {UNPLACED: [*section[UNPLACED], *rest]} if UNPLACED in section else section for section in settings["nav"]
    ]
    return settings | {"nav": sections}


def write(folder: Path) -> None:
    """Write the tree into ``folder/docs``, and the settings that go with it into ``folder/mkdocs.yml``."""
    shutil.rmtree(folder / "docs", ignore_errors=True)
    for path in all_files():
        there = folder / "docs" / site_path(path)
        there.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith((".md", _NOTEBOOK)):
            there.write_text(_NOT_SEARCHED_HEAD * path.startswith(NOT_SEARCHED) + rewritten(path))
        if not path.endswith(".md"):
            shutil.copy(ROOT / path, there.with_name(posixpath.basename(path)))
        if path.endswith(_NOTEBOOK):
            for name, picture in pictures((ROOT / path).read_text(), posixpath.basename(path)).items():
                there.with_name(name).write_bytes(picture)
    with (folder / "docs" / "management-api.md").open("a") as page:
        page.write("\n" + management_page())
    pages = {page.name for page in ROOT.glob("docs/*.md")}
    settings = with_navigation(yaml.safe_load(SETTINGS.read_text()), pages)
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
