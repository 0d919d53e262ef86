"""Find what the pages of a site load from other sites: ``foreign_loads.py FOLDER``. It exits 1 if there is any."""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

# Attributes that a browser loads from by itself; of <link> only with such a relation.
_LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "object": "data",
}
_RELATIONS = {"stylesheet", "preload", "prefetch", "modulepreload", "icon", "manifest"}


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        url = values.get(_LOADED.get(tag, ""))
        if tag == "link" and _RELATIONS & set((values.get("rel") or "").split()):
            url = values.get("href")
        if url and url.startswith(("http:", "https:", "//")):
            self.found.append(f"<{tag}> {url}")


def foreign(html: str) -> list[str]:
    """Return what a page would load from other sites. Links, which a reader may follow, do not count."""
    parser = _Loads()
    parser.feed(html)
    return parser.found


def of_site(folder: Path) -> Iterator[str]:
    for page in sorted(folder.rglob("*.html")):
        for url in foreign(page.read_text()):
            yield f"{page.relative_to(folder)} loads {url}"


if __name__ == "__main__":
    lines = list(of_site(Path(sys.argv[1])))
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.exit(1 if lines else 0)
