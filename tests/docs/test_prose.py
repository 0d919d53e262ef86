"""The English of pages, docstrings and comments: kinds of sentences that readers had to read twice."""

import ast
import re
import tokenize
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from wrap_pages import wrapped

from tests.docs.pages import ROOT

# Of the folders of the source: those beside it hold environments and builds, too.
_FOLDERS = (".github", "benchmarks", "docs", "proto", "scripts", "sdk", "src")
_CODE_FOLDERS = ("benchmarks", "examples", "scripts", "sdk", "src", "tests")
PAGES = [*ROOT.glob("*.md"), *(page for folder in _FOLDERS for page in (ROOT / folder).rglob("*.md"))]
# Code, links' targets and the heads of tables are no sentences.
_NO_PROSE = re.compile(r"^( *)```[\s\S]*?^\1```$|`[^`\n]+`|\]\([^)]*\)|^#.*$|^\|[-| ]+\|$", re.MULTILINE)
# After a sentence's end, a colon, or a list's dash.
_BEGIN = r"(?:^|[.:;!] |^ *- )"
KINDS = {
    "a clause as the subject: name the thing": rf"{_BEGIN}(?:What|Who|That which) [^.|]*[.|](?!\?)",
    "who without a person": r"\b(?:one|those|that|all|others) who\b",
    "before and now: history belongs to commits": r"\b(?:it was|where it took|they took|which took) [\d.,]+ ",
    "one word for two ideas": r"\b(?:has what was|goes by|as ever)\b",
    "a clause as the predicate: name the thing": r"\b(?:is|are|was|were) what (?:the|a|an|it|they|was|is|half|users)\b",
}

# Of two wordings of one message, the one that no message has; ``…`` is a value.
SECOND_WORDINGS = {
    "X … does not exist": r"there is no (?:such )?(?:application|key|model|replica|secret|token)\b(?! yet)"
    r"|(?:application|model|replica|token) … is not known|(?:application|model|version) (?:was )?not found",
    "X … exists already": r"\balready exists|\balready runs",
    "… cannot be read": r"\bcannot (?:read|open|write) (?:the [a-z ]*)?…",
    "expected at most …": r"expected … (?:[a-z]+ )?at most",
}


def sentences(page: Path) -> str:
    return _NO_PROSE.sub("…", page.read_text())


@cache
def docstrings() -> list[tuple[str, str]]:
    """The docstrings of the source, each with its place."""
    return [
        (f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", re.sub(r"``[^`]*``", "…", text))
        for file in sorted((ROOT / "src").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and (text := ast.get_docstring(node))
    ]


@cache
def comments() -> list[tuple[str, str]]:
    """The comments of all code, each with its place. Lines that follow each other are one comment."""
    found = []
    for file in sorted(file for folder in _CODE_FOLDERS for file in (ROOT / folder).rglob("*.py")):
        with file.open() as lines:
            tokens = [token for token in tokenize.generate_tokens(lines.readline) if token.type == tokenize.COMMENT]
        texts: list[str] = []
        for token, after in pairwise([*tokens, None]):
            assert token is not None
            texts.append(token.string.lstrip("#: "))
            if after is None or after.start != (token.start[0] + 1, token.start[1]):
                text = re.sub(r"``[^`]*``", "…", " ".join(texts))
                found.append((f"{file.relative_to(ROOT)}:{token.start[0]}", text if text.endswith(":") else f"{text}."))
                texts.clear()
    return found


@cache
def messages() -> list[tuple[str, str]]:
    """The texts of the source that are no docstrings, each with its place; values in a text are ``…``."""
    found = []
    for file in sorted((ROOT / "src").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        left_out = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        left_out |= {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.JoinedStr | ast.Constant) and id(node) not in left_out:
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
                found.append((f"{file.relative_to(ROOT)}:{node.lineno}", text))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_no_page_has_a_sentence_of_this_kind(kind: str) -> None:
    kinds = re.compile(KINDS[kind], re.MULTILINE)
    found = [
        f"{page.relative_to(ROOT)}: {match[0].strip()[:120]}"
        for page in PAGES
        for match in kinds.finditer(sentences(page))
    ]
    assert found == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [docstrings, comments])
def test_no_docstring_or_comment_has_a_sentence_of_this_kind(
    texts: Callable[[], list[tuple[str, str]]], kind: str
) -> None:
    kinds = re.compile(KINDS[kind], re.MULTILINE)
    assert [f"{place}: {match[0].strip()}" for place, text in texts() for match in kinds.finditer(text)] == []


@pytest.mark.parametrize("wording", SECOND_WORDINGS)
def test_messages_say_the_same_in_one_wording(wording: str) -> None:
    second = re.compile(SECOND_WORDINGS[wording])
    assert [f"{place}: {text}" for place, text in messages() if second.search(text)] == []


def test_lines_of_pages_are_broken_at_the_ends_of_sentences() -> None:
    assert [str(page.relative_to(ROOT)) for page in PAGES if wrapped(page.read_text()) != page.read_text()] == [], (
        "make format breaks them"
    )


LONG = "A word of a sentence, " * 9


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("Short. Sentences stay.", ["Short. Sentences stay."]),
        (f"- {LONG}ends. `Next` ends.", [f"  {LONG}".strip().join(["- ", ""]), "  ends.", "  `Next` ends."]),
        (f"{LONG}e.g. A list.", [LONG.strip(), "e.g. A list."]),
        (
            f"{LONG}[a link](of.md) and `code of words` - 1. end",
            [LONG.strip(), "[a link](of.md) and `code of words` - 1. end"],
        ),
        (f"| {LONG}. A cell |", [f"| {LONG}. A cell |"]),
        (f"![{LONG}. A picture](a.svg)", [f"![{LONG}. A picture](a.svg)"]),
        (f"```\n{LONG}. Code\n```", ["```", f"{LONG}. Code", "```"]),
    ],
)
def test_a_line_that_is_too_long_is_broken_where_markdown_stays_the_same(line: str, lines: list[str]) -> None:
    assert wrapped(line).split("\n") == lines
    assert wrapped(wrapped(line)) == wrapped(line)
