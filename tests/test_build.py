"""What a process says of the code that it runs."""

import os

from clipper.build import form


def test_what_runs_is_the_form_that_is_tested() -> None:
    assert form() == os.environ.get("CLIPPER_FORM", "pure Python")
