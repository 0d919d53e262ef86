from pathlib import Path

import foreign_loads
import pytest


@pytest.mark.parametrize(
    ("html", "is_foreign"),
    [
        ('<script src="https://unpkg.com/x"></script>', True),
        ('<link rel="stylesheet" href="https://fonts.example/x">', True),
        ('<link href="//x.example/z.css" rel="preload stylesheet">', True),
        ('<img alt="" src="http://x.example/y.png">', True),
        ('<link rel="canonical" href="https://x.example">', False),
        ('<a href="https://x.example">x</a>', False),
        ('<script src="assets/x.js"></script><img src="../y.svg">', False),
    ],
)
def test_what_a_page_loads_from_other_sites_is_found(html: str, is_foreign: bool, tmp_path: Path) -> None:
    assert bool(foreign_loads.foreign(html)) == is_foreign
    (tmp_path / "page.html").write_text(html)
    assert bool(list(foreign_loads.of_site(tmp_path))) == is_foreign
