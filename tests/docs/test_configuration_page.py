"""docs/configuration.md's bounds against the constants that it names."""

import importlib
import re
from pathlib import Path

import pytest
from msgspec import Struct

from clipper.cli.settings import options_of
from clipper.settings.application import NewApplication
from clipper.settings.server import ServerSettings
from clipper.settings.texts import read_size
from clipper.settings.version import Deployment

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
ROWS = re.findall(r"^\| [^|]+ \| ([^|]+) \| (`[\w.]+\.[A-Z_]+`(?:, `[\w.]+`)*) \|$", PAGE, re.MULTILINE)
UNITS = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


def shown(name: str, value: float) -> str:
    """A constant's value as the page writes it; the unit is in its name."""
    if name.endswith(("_BYTES", "_BYTES_PER_ROW")):
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


def rows_of(section: str) -> dict[str, list[str]]:
    """The table of a section: an option to its other cells."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `--")]
    return {row[0].strip("`"): row[1:] for row in rows}


@pytest.mark.parametrize(
    ("section", "kind"),
    [("The server", ServerSettings), ("A deployment", Deployment), ("An application", NewApplication)],
)
def test_each_setting_has_its_row_with_its_default_and_range(section: str, kind: type[Struct]) -> None:
    rows, wrong = rows_of(section), []
    for option in options_of(kind):
        cells = " | ".join(rows.get(option.flag, [])).replace(",", "")
        default, setting = option.parameter.default, option.setting
        expected = [str(default)] if default is not None and setting.read is not read_size else []
        if setting.read is not read_size and setting.most is not None:
            expected += [f"{setting.least:.16g}", f"{setting.most:.16g}"]
        wrong += [f"{option.flag}: {text}" for text in expected if text.removesuffix(".0") not in cells]
        wrong += [option.flag] if option.flag not in rows else []
    assert wrong == []
