"""The rules that tests of pages use: where blocks and commands begin and end, and what a shown output stands for."""

from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.pages import Reader, blocks, commands, follow, pattern

TEXT = """# Title

```sh
clipper start   # a comment
curl x -d '{"a": 1,
  "b": 2}'
```

- in a list:

  ```python
  # made.py
  x = 1
  ```

```text
out
```
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(TEXT)
    return tmp_path / "page.md"


def test_blocks_have_their_language_their_line_and_no_indent(page: Path) -> None:
    found = list(blocks(page))
    assert [(block.language, block.line) for block in found] == [("sh", 4), ("python", 12), ("text", 17)]
    assert found[1].text == "# made.py\nx = 1\n"


def test_a_quotation_goes_on_in_the_next_line(page: Path) -> None:
    assert commands(next(blocks(page)).text) == ["clipper start   # a comment", 'curl x -d \'{"a": 1,\n  "b": 2}\'']


def test_a_command_that_does_not_end_is_found() -> None:
    with pytest.raises(AssertionError, match="does not end"):
        commands("echo 'a\n")


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("77% of 300 answers", "81% of 1,000 answers", True),
        ("77% of 300 answers", "81% of 1,000 queries", False),
        ("a  b\n", "a b", True),
        ("good:1  98.1%  ████", "good:1 1.9%  -  ", True),
        ("good:1  98.1%", "bad:1 98.1%", False),
        ("starts … ends", "starts and then\nends", True),
        ("starts … ends", "starts and stops", False),
        ("a.b", "axb", False),
    ],
)
def test_an_output_is_that_which_is_shown_but_for_its_numbers(shown: str, printed: str, same: bool) -> None:
    assert bool(pattern(shown).search(printed)) == same


def test_a_page_whose_output_is_another_fails(page: Path, tmp_path: Path) -> None:
    page.write_text("```python\n# made.py\nprint('out')\n```\n```sh\npython made.py\n```\n```text\nout\n```\n")
    assert follow(page, Reader(tmp_path)) == ["python made.py"]
    page.write_text(page.read_text().replace("```text\nout", "```text\nother"))
    with pytest.raises(AssertionError, match=r"page\.md:9 shows"):
        follow(page, Reader(tmp_path), again=1)


def test_one_section_is_followed_alone(page: Path, tmp_path: Path) -> None:
    body = """```sh
echo 'up' && echo '{"a":[1]}'
```
```json
{"a": [2]}
```
"""
    page.write_text(f"## A\n```sh\nfalse\n```\n## B\n{body}## C\n```sh\nfalse\n```\n")
    assert follow(page, Reader(tmp_path), section="B") == ["""echo 'up' && echo '{"a":[1]}'"""]
    page.write_text(f"## A\n```sh\nfalse\n```\n## B\n{body}")
    assert len(follow(page, Reader(tmp_path), section="B")) == 1


def test_a_page_whose_command_fails_fails(page: Path, tmp_path: Path) -> None:
    page.write_text("```sh\nfalse\n```\n")
    with pytest.raises(AssertionError, match="false"):
        follow(page, Reader(tmp_path))
