"""The parser that makes a buffer of the numbers in JSON text: simdjson's, or another where that is not installed.

Readers parse all texts that it refuses in their own, slower way.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np


class ListParser:
    """Parses flat lists of floats by msgspec, with the methods of simdjson's parser, and refuses all else.

    For Pythons for which simdjson has no wheel. A list of 784 floats takes it 120 us, and simdjson 32.
    """

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(list[float]).decode
        self._numbers: list[float] = []

    def parse(self, text: bytes) -> "ListParser":
        """Raises ValueError if the text is not a flat list of numbers."""
        self._numbers = self._decode(text)
        return self

    def as_buffer(self, of_type: str) -> bytes:
        """Return the numbers as float64. Raises ValueError if another type is asked for."""
        if of_type != "d":
            raise ValueError(f"expected d, for floats; got {of_type}")
        return np.array(self._numbers, "<f8").tobytes()


# A parser cannot be used again while one of its documents is alive.
Parser: Callable[[], Any]
try:
    import simdjson
except ImportError:
    Parser = ListParser
else:
    Parser = simdjson.Parser
