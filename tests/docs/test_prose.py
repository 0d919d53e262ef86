"""The English of the pages: kinds of sentences that readers had to read twice."""

import re
from pathlib import Path

import pytest

from tests.docs.test_blocks import PAGES

# Code, links' targets and the heads of tables are no sentences.
_NO_PROSE = re.compile(r"^( *)```[\s\S]*?^\1```$|`[^`\n]+`|\]\([^)]*\)|^#.*$|^\|[-| ]+\|$", re.MULTILINE)
# After a sentence's end, a colon, or a list's dash.
_BEGIN = r"(?:^|[.:;!] |^ *- )"
KINDS = {
    "a clause as the subject: name the thing": rf"{_BEGIN}(?:What|Who|That which) [^.|]*[.|](?!\?)",
    "who without a person": r"\b(?:one|those|that|all|others) who\b",
    "before and now: history belongs to commits": r"\b(?:it was|where it took|they took|which took) [\d.,]+ ",
    "one word for two ideas": r"\b(?:has what was|goes by|as ever)\b",
}


def sentences(page: Path) -> str:
    return _NO_PROSE.sub("…", page.read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_no_page_has_a_sentence_of_this_kind(kind: str) -> None:
    kinds = re.compile(KINDS[kind], re.MULTILINE)
    found = [f"{page.name}: {match[0].strip()[:120]}" for page in PAGES for match in kinds.finditer(sentences(page))]
    assert found == []
