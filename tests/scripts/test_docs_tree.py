"""The tree that the site is built from, and the pictures of its concepts."""

import json
import re
from pathlib import Path

import docs_pictures
import docs_tree
import pytest
import yaml

ROOT = docs_tree.ROOT
PAGES = {page.name for page in ROOT.glob("docs/*.md")}
NAVIGATION = yaml.safe_load(docs_tree.SETTINGS.read_text())["nav"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    docs_tree.write(folder)
    return folder


def test_every_page_has_a_place_on_the_site_and_every_place_a_page(tree: Path) -> None:
    named = docs_tree.placed(yaml.safe_load((tree / "mkdocs.yml").read_text())["nav"])
    assert sorted(PAGES - named) == []
    assert [page for page in sorted(named) if not (tree / "docs" / page).is_file()] == []


def test_there_are_the_four_kinds_and_two_more() -> None:
    kinds = ["Tutorial", "How-to", "Concepts", "Benchmarks", "Reference", "Contribute"]
    assert [next(iter(section)) for section in NAVIGATION][1:] == kinds


@pytest.mark.parametrize(
    "question",
    ["deploy a PyTorch model", "bandit per user", "keys and TLS", "Kubernetes", "why are my answers defaults"],
)
def test_the_search_finds_a_heading_for_a_common_question(tree: Path, question: str) -> None:
    # The site's search shows the headings that have all words of a question first.
    words = set(question.lower().split())
    headings = [
        line for page in (tree / "docs").glob("*.md") for line in page.read_text().splitlines() if line[:1] == "#"
    ]
    assert [line for line in headings if words <= set(re.findall(r"\w+", line.lower()))]


def test_the_search_leaves_out_pages_that_few_look_for(tree: Path) -> None:
    pages = {page.relative_to(tree / "docs").as_posix(): page.read_text() for page in (tree / "docs").rglob("*.md")}
    left_out = {name for name, text in pages.items() if "exclude: true" in text[:40]}
    alone = {"ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "paper.md"}
    assert {name for name in left_out if "/" not in name} == alone
    assert {name.split("/")[0] for name in left_out if "/" in name} == {"deploy", "internals", "src"}


def test_a_page_without_a_place_comes_under_how_to() -> None:
    settings = {"nav": [{"Start": ["index.md"]}, {"How-to": ["a.md", {"More": ["b.md"]}]}]}
    assert docs_tree.with_navigation(settings, {"a.md", "b.md", "new.md"})["nav"] == [
        {"Start": ["index.md"]},
        {"How-to": ["a.md", {"More": ["b.md"]}, "new.md"]},
    ]


def test_every_link_of_the_tree_leads_to_a_file_of_it(tree: Path) -> None:
    broken = []
    for page in (tree / "docs").rglob("*.md"):
        text = page.read_text()
        docs_tree.with_links(
            text, lambda link, page=page: broken.append((page, link[1])) if not (page.parent / link[1]).exists() else ""
        )
    assert broken == []


def test_links_are_rewritten_and_code_is_not() -> None:
    text = "[a](../README.md#run) `[b](c.md)`\n```sh\necho '[d](e.md)'\n```\n[f](https://x.org/y) [g](#here)"
    assert docs_tree.with_links(text, lambda link: f"](<{link[1]}{link[2] or ''}>)") == text.replace(
        "../README.md#run", "<../README.md#run>"
    )


def test_the_site_has_readme_first_and_docs_at_its_root(tree: Path) -> None:
    assert docs_tree.site_path("README.md") == "index.md"
    assert docs_tree.site_path("docs/cli.md") == "cli.md"
    assert "](cli.md)" in (tree / "docs" / "index.md").read_text()
    assert "](proto/container-protocol.md)" in (tree / "docs" / "docker.md").read_text()
    assert "](../docker.md)" not in (tree / "docs" / "docker.md").read_text()


@pytest.mark.parametrize("name", docs_pictures.PICTURES)
def test_pictures_are_those_of_the_script(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == docs_pictures.drawn(name)


def anchors(page: str, *, joins: str) -> set[str]:
    """The anchors of a page's headings, and those that it sets; ``joins`` is what becomes one hyphen in a heading."""
    text = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).replace("`", "").strip().lower() for title in titles]
    given = set(re.findall(r'<a id="([\w-]+)">', text))
    return given | {re.sub(joins, "-", re.sub(r"[^\w\s-]", "", title)) for title in plain}


@pytest.mark.parametrize("joins", [r"[-\s]+", r"\s"], ids=["site", "repository"])
def test_every_anchor_is_that_of_a_heading(tree: Path, joins: str) -> None:
    broken: list[tuple[str, str]] = []
    for page in (tree / "docs").rglob("*.md"):
        text = page.read_text()
        for path, anchor in re.findall(r"\]\((?![a-z]+:)([^)#\s]*)#([^)\s]+)\)", re.sub(r"`[^`\n]+`", "", text)):
            linked = page.parent / path if path else page
            if linked.suffix == ".md" and anchor not in anchors(linked.read_text(), joins=joins):
                broken.append((page.name, f"{path}#{anchor}"))
    assert broken == []


def test_a_notebook_is_a_page_with_its_outputs() -> None:
    printed = {"output_type": "stream", "text": ["\x1b[2m1\x1b[0m\n"]}
    drawn = {"data": {"image/png": "UE5H", "text/plain": ["<Figure>"]}}
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": ["print(1)"], "outputs": [printed]},
        {"cell_type": "code", "source": ["plot()"], "outputs": [drawn, {"data": {"text/plain": ["2"]}}]},
    ]
    notebook = json.dumps({"cells": cells})
    assert docs_tree.pictures(notebook, "a.ipynb") == {"a-1.png": b"PNG"}
    page = docs_tree.notebook_text(notebook, "a.ipynb").split("\n\n", 2)[-1]
    outputs = [
        "```text\n1\n```",
        "```python\nplot()\n```",
        "![The picture that this code draws](a-1.png)",
        "```text\n2\n```",
    ]
    assert page == "\n\n".join(["```python\nprint(1)\n```", *outputs]) + "\n"
