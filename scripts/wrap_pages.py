"""Breaks lines of pages that are over 200 characters: at the ends of sentences, and longer sentences at commas.

Tables, headings, code and lists of links keep their lines. ``make format`` runs it; tests/docs/test_prose.py looks.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

WIDTH = 200
# Words of a line: code and links are never broken.
_WORD = re.compile(r"(?:!?\[(?:`[^`]*`|[^\]`])*\](?:\([^)]*\))?|`[^`]*`|\S)+")
_SENTENCE_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\bet al)(?<!\bvs)[.!?][)*\"”]*$")
_NO_BEGIN = re.compile(r"[-+*#|>=:]|\d+[.)]$")
_NO_PROSE = re.compile(r"\s*(?:\||#|>|<|\[[^\]]+\]: )")


def wrapped(text: str) -> str:
    """The text of a page with no line of prose over ``WIDTH`` characters, as far as its words allow that."""
    lines, in_code = [], False
    for line in text.split("\n"):
        in_code ^= line.lstrip().startswith("```")
        if in_code or len(line) <= WIDTH or _NO_PROSE.match(line):
            lines.append(line)
        else:
            lines += _broken(line)
    return "\n".join(lines)


def _broken(line: str) -> Iterator[str]:
    begin = re.match(r" *(?:[-*] |\d+\. )?", line)
    assert begin is not None
    prefix = begin[0]
    for sentence in _sentences(_WORD.findall(line[len(prefix) :])):
        for part in _parts(sentence, WIDTH - len(prefix)):
            yield prefix + " ".join(part)
            prefix = " " * len(prefix)


def _sentences(words: Sequence[str]) -> Iterator[Sequence[str]]:
    begin = 0
    for index in range(1, len(words)):
        if (
            _SENTENCE_END.search(words[index - 1])
            and re.match(r"[A-Z`\[(*\"“]", words[index])
            and _begins(words[index])
        ):
            yield words[begin:index]
            begin = index
    yield words[begin:]


def _parts(words: Sequence[str], width: int) -> Iterator[Sequence[str]]:
    """One sentence, broken behind its last comma or the like that leaves a part of a third of the width or more."""
    while len(" ".join(words)) > width:
        ends = [index for index in range(1, len(words)) if _begins(words[index])]
        fits = [index for index in ends if len(" ".join(words[:index])) <= width] or ends[:1] or [len(words)]
        commas = [index for index in fits if words[index - 1][-1] in ",;:" and len(" ".join(words[:index])) > width / 3]
        end = (commas or fits)[-1]
        yield words[:end]
        words = words[end:]
    if words:
        yield words


def _begins(word: str) -> bool:
    """Whether a line may begin with this word, and is no list or table then."""
    return word.startswith("**") or not _NO_BEGIN.match(word)


def main() -> None:
    for page in map(Path, sys.argv[1:]):
        text = page.read_text()
        if (new := wrapped(text)) != text:
            page.write_text(new)


if __name__ == "__main__":
    main()
