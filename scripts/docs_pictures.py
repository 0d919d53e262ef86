"""Draw the pictures of the concepts: ``python scripts/docs_pictures.py``. A test holds the files against this.

They are SVG without scripts or fonts of other sites, and follow the reader's light or dark colours.
"""

from collections.abc import Iterator
from html import escape
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
_STYLE = """
text { font: 14px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 12px; fill: #59636e }
.end { text-anchor: end } .middle { text-anchor: middle }
rect { rx: 4px; stroke-width: 1.5px }
.box { fill: #eef2ff; stroke: #4051b5 } .wait { fill: #f1f3f5; stroke: #868e96 }
.good { fill: #d8f3dc; stroke: #2d6a4f } .bad { fill: #ffe3e3; stroke: #c92a2a }
.line { stroke: #59636e; stroke-width: 1.5px; fill: none } .tip { fill: #59636e }
.dashed { stroke-dasharray: 5 4 } .goal { stroke: #c92a2a; stroke-width: 2px }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 }
.box { fill: #1f2550; stroke: #8c9eff } .wait { fill: #2a2f36; stroke: #868e96 }
.good { fill: #123d2b; stroke: #69db7c } .bad { fill: #4a1a1a; stroke: #ff8787 }
.line { stroke: #9198a1 } .tip { fill: #9198a1 } .goal { stroke: #ff8787 }
}
"""


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str, *lines: str) -> str:
    """A box with lines of text in its middle; the first line is larger."""
    drawn = [f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" class="{kind}"/>']
    top = y + height / 2 + 5 - 8 * (len(lines) - 1)
    for number, line in enumerate(lines):
        drawn.append(text(x + width / 2, top + 16 * number, line, "middle small" if number else "middle"))
    return "".join(drawn)


def arrow(*points: tuple[float, float], kind: str = "") -> str:
    """A line through points, with a tip at its end."""
    way = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline points="{way}" class="line {kind}" marker-end="url(#tip)"/>'


def picture(title: str, width: int, height: int, parts: Iterator[str]) -> str:
    tip = (
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L10,5 L0,10 z" class="tip"/></marker></defs>'
    )
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title><style>{_STYLE}</style>", tip, *parts, "</svg>\n"])


def axis(y: float, left: float, scale: float, *marks_ms: float) -> Iterator[str]:
    yield f'<line x1="{left:g}" y1="{y:g}" x2="{left + scale * marks_ms[-1]:g}" y2="{y:g}" class="line"/>'
    for ms in marks_ms:
        yield text(left + scale * ms, y + 18, f"{ms:g} ms", "middle small")


def deadlines() -> Iterator[str]:
    """What becomes of three queries with an SLO of 20 ms."""
    left, scale = 18.0, 17.2

    def at(ms: float) -> float:
        return left + scale * ms

    rows = (
        ("in time", ((0, 5, "wait", "waits"), (5, 12, "good", "its batch runs")), 12, "the output"),
        ("too slow", ((0, 8, "wait", "waits"), (8, 24, "bad", "its batch runs")), 19, "the default, timeout"),
        ("without a chance", ((0, 6, "wait", "waits"),), 6, "the default at once, with the reason"),
    )
    for number, (name, spans, answered_ms, answer) in enumerate(rows):
        y = 50 + 92 * number
        yield text(left, y - 8, name)
        for begin, end, kind, label in spans:
            yield box(at(begin), y, at(end) - at(begin), 28, kind, label)
        yield arrow((at(answered_ms), y + 28), (at(answered_ms), y + 48))
        is_late = answered_ms > 15
        yield text(at(answered_ms) + (-8 if is_late else 8), y + 46, answer, "small end" if is_late else "small")
    yield f'<line x1="{at(20):g}" y1="22" x2="{at(20):g}" y2="296" class="line goal"/>'
    yield text(at(20), 16, "SLO", "middle")
    yield f'<line x1="{at(19):g}" y1="22" x2="{at(19):g}" y2="296" class="line dashed"/>'
    yield from axis(296, left, scale, 0, 5, 10, 15, 20, 25)


def batching() -> Iterator[str]:
    """Which of the waiting queries go in the next batch."""
    left, scale = 68.0, 15.6

    def at(ms: float) -> float:
        return left + scale * ms

    yield f'<rect x="{at(6):g}" y="20" width="{at(13) - at(6):g}" height="226" class="box"/>'
    yield text((at(6) + at(13)) / 2, 14, "the batch: 3 ms and 1 ms for each row", "middle small")
    rows = (
        (0, 9, "bad", "dropped"),
        (1, 15, "good", ""),
        (2, 17, "good", ""),
        (3, 19, "good", ""),
        (4, 22, "good", ""),
    )
    for number, (arrival, deadline, kind, note) in enumerate(rows):
        y = 32 + 36 * number
        yield text(left - 10, y + 17, f"query {number + 1}", "end")
        yield box(at(arrival), y, at(deadline) - at(arrival), 24, kind, note)
    yield text(left - 10, 229, "query 6", "end")
    yield box(at(8), 212, at(25) - at(8), 24, "wait", "comes while it runs: next batch")
    yield f'<line x1="{at(6):g}" y1="20" x2="{at(6):g}" y2="256" class="line dashed"/>'
    yield text(at(6), 292, "a replica is free", "middle small")
    yield f'<line x1="{at(13):g}" y1="20" x2="{at(13):g}" y2="256" class="line dashed"/>'
    yield text(at(13), 308, "four answers leave", "middle small")
    yield from axis(256, left, scale, 0, 5, 10, 15, 20, 25)


def selection() -> Iterator[str]:
    """How a query and its feedback go through an application."""
    yield box(10, 10, 110, 50, "wait", "query", "input, context")
    yield arrow((120, 30), (178, 30))
    yield box(180, 4, 130, 62, "box", "select", "draws by share")
    models = (("svm", "share 0.9", "good"), ("forest", "share 0.1", "wait"), ("net", "shadow", "wait"))
    for number, (name, note, kind) in enumerate(models):
        x = 10 + 165 * number
        yield box(x, 120, 125, 46, kind, name, note)
        yield arrow((245, 66), (x + 62, 118), kind="" if kind == "good" else "dashed")
    yield arrow((72, 166), (72, 208))
    yield box(10, 210, 125, 62, "box", "combine", "one answer")
    yield arrow((135, 241), (193, 241))
    yield box(195, 216, 200, 50, "good", "answer", "output, query_id, confidence")
    yield arrow((295, 266), (295, 328))
    yield text(303, 300, "later: the label", "small")
    yield box(230, 330, 130, 50, "box", "loss", "of each output")
    yield arrow((420, 166), (420, 355), (362, 355), kind="dashed")
    yield arrow((230, 355), (172, 355))
    yield box(10, 330, 160, 50, "box", "state", "of all, and by context")
    yield arrow((153, 330), (153, 48), (178, 48))
    yield text(160, 200, "shares", "small")


def selection_time() -> Iterator[str]:
    """Where a query goes whose best model is full."""
    yield box(10, 20, 110, 54, "wait", "query", "due in 100 ms")
    rows = (("good model", "right in 98 %", 8, 0.3, 0.29, "bad"), ("quick model", "right in 80 %", 1, 1.0, 0.8, "good"))
    for number, (name, quality, waiting, chance, worth, kind) in enumerate(rows):
        y = 20 + 164 * number
        yield arrow((65, 74), (65, y + 27), (158, y + 27)) if number else arrow((120, 47), (158, 47), kind="dashed")
        for place in range(waiting):
            yield box(160 + 17 * place, y + 10, 13, 34, "wait")
        yield text(160, y + 62, f"{waiting} ahead in its queue", "small")
        yield box(330, y, 140, 54, "box", name, quality)
        yield arrow((400, y + 54), (400, y + 76))
        product = f"in time {chance:g} \u00d7 right {quality.split()[2]} % = {worth:g}"
        yield box(160, y + 78, 310, 54, kind, product, "what the user gets")
    yield text(315, 340, "the query goes where that is most", "middle small")


def processes() -> Iterator[str]:
    """The processes of a server, and the rooms of the source that each one runs."""
    yield box(10, 10, 190, 54, "wait", "applications", "REST :1337, gRPC :1339")
    yield box(280, 10, 190, 54, "wait", "operators", "REST :1338, CLI")
    yield arrow((105, 64), (105, 98))
    yield arrow((460, 64), (460, 308))
    yield box(10, 100, 430, 120, "box", "", "")
    yield text(225, 124, "query worker 1..N", "middle")
    for number, name in enumerate(("frontend", "selection", "abstraction", "link")):
        x = 24 + 104 * number
        yield box(x, 140, 90, 38, "good", name)
        if number:
            yield arrow((x - 14, 159), (x - 1, 159))
    yield text(225, 204, "worker, learning", "middle small")
    yield arrow((105, 220), (105, 308))
    yield text(114, 268, "protocol", "small")
    yield box(10, 310, 190, 60, "box", "model container", "replica 1..R: model")
    yield arrow((300, 310), (300, 222))
    yield text(308, 260, "control: snapshots", "small")
    yield text(308, 276, "go up, readings", "small")
    yield text(308, 292, "come down", "small")
    yield box(250, 310, 220, 76, "box", "supervisor", "supervisor, api", "decides in rollout, acts in managers")
    yield arrow((250, 340), (202, 340), kind="dashed")
    yield text(105, 390, "the supervisor starts,", "middle small")
    yield text(105, 406, "watches and heals it", "middle small")
    yield arrow((360, 386), (360, 426))
    yield box(250, 428, 220, 54, "wait", "registry", "SQLite, or a shared Redis")


# On a phone, 360 pixels wide, their letters still have nine pixels.
WIDTH = 480
PICTURES = {
    "processes.svg": ("The processes of a server, and what each one runs", 490, processes),
    "batching-rule.svg": ("Five queries wait; four go in a batch, and one is dropped", 316, batching),
    "deadlines.svg": ("What becomes of three queries with an SLO of 20 ms", 322, deadlines),
    "selection-time.svg": ("A query goes to the model that gives its user most in time", 352, selection_time),
    "selection.svg": ("A query asks one model by its share; feedback changes the shares", 390, selection),
}


def drawn(name: str) -> str:
    title, height, parts = PICTURES[name]
    return picture(title, WIDTH, height, parts())


if __name__ == "__main__":
    for file in PICTURES:
        (DOCS / file).write_text(drawn(file))
