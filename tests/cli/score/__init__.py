"""Tests of ``clipper.cli.score``."""
