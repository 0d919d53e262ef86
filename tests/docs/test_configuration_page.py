"""docs/configuration.md's bounds against the constants that it names."""

import importlib
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
ROWS = re.findall(r"^\| [^|]+ \| ([^|]+) \| (`[\w.]+\.[A-Z_]+`(?:, `[\w.]+`)*) \|$", PAGE, re.MULTILINE)
UNITS = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


def shown(name: str, value: float) -> str:
    """A constant's value as the page writes it; the unit is in its name."""
    if name.endswith("_BYTES"):
        size, unit = next((size, unit) for size, unit in UNITS if value >= size)
        return f"{value / size:g} {unit}"
    return f"{value:,g} s" if name.endswith("_S") else f"{value:,d}"


def constant(path: str) -> str:
    module, _, name = path.strip("`").rpartition(".")
    return shown(name, getattr(importlib.import_module(f"clipper.{module}"), name))


@pytest.mark.parametrize(("value", "constants"), ROWS)
def test_bound_is_as_in_the_code(value: str, constants: str) -> None:
    # Commas stand between values and inside thousands: only those before a space separate.
    assert value.split(", ") == [constant(path) for path in constants.split(", ")]


def test_the_page_has_bounds() -> None:
    assert len(ROWS) > 20
