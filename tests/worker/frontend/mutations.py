"""Bytes that are nearly what they were."""

from collections.abc import Sequence
from random import Random


def mutated(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, text in edits:
        at = place % (len(data) + 1)
        match kind:
            case "insert":
                data = data[:at] + text + data[at:]
            case "delete":
                data = data[:at] + data[at + len(text) :]
            case "replace":
                data = data[:at] + text + data[at + len(text) :]
            case "repeat":
                data = data[:at] + data[max(0, at - 40) : at] * 2 + data[at:]
    return data


def random_edits(random: Random, fragments: Sequence[bytes]) -> list[tuple[str, int, bytes]]:
    """One to five edits for ``mutated``."""
    kinds = ["insert", "delete", "replace", "repeat"]
    return [
        (
            random.choice(kinds),
            random.randrange(1 << 16),
            random.choice(fragments) if random.random() < 0.7 else random.randbytes(random.randint(1, 6)),
        )
        for _ in range(random.randint(1, 5))
    ]
