"""Lets through a bounded number of lines a second, and counts the others."""


class RateBound:
    """A bucket of tokens. ``left_out`` counts what was not let through since ``take_left_out`` was called.

    Args:
        per_second: how many may pass in the long run.
        at_once: how many may pass in one moment.
    """

    def __init__(self, per_second: float, at_once: int) -> None:
        self._per_second, self._at_once = per_second, at_once
        self._tokens = float(at_once)
        self._last_s = 0.0
        self.left_out = 0

    def lets(self, now_s: float) -> bool:
        self._tokens = min(self._at_once, self._tokens + max(0.0, now_s - self._last_s) * self._per_second)
        self._last_s = now_s
        if self._tokens < 1:
            self.left_out += 1
            return False
        self._tokens -= 1
        return True

    def take_left_out(self) -> int:
        left_out, self.left_out = self.left_out, 0
        return left_out
