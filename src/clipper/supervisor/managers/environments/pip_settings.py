"""Translates the settings of the user's pip for uv, which does not read them."""

import ast
from collections.abc import Mapping

# pip's setting to uv's variable, with the separator between several values there.
_VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", None),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "constraint": ("UV_CONSTRAINT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", None),
    "timeout": ("UV_HTTP_TIMEOUT", None),
    "cert": ("SSL_CERT_FILE", None),
    "proxy": ("ALL_PROXY", None),
}
# Older names of uv's variables. Where the user has set the old one, the new one must not contradict it.
_ALIASES = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}

# If several sections have a setting, the later section wins, as for pip.
_SECTIONS = ("global", "install", ":env:")

_FALSE = {"", "0", "no", "off", "false"}


def parse_pip_config(text: str) -> dict[str, str]:
    """Read the output of ``pip config list``: each setting's name, without its section, to its value."""
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        section, dot, setting = name.rpartition(".")
        if equals and dot and section in found:
            found[section][setting] = _unquoted(value)
    return {name: value for section in _SECTIONS for name, value in found[section].items()}


def uv_variables(pip: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that give uv the same indexes, folders, constraints and certificates. Those in ``environ`` win."""
    variables = {"UV_PRERELEASE": "allow"} if _is_on(pip.get("pre")) else {}
    for setting, (variable, separator) in _VARIABLES.items():
        if value := pip.get(setting, "").strip():
            variables[variable] = separator.join(value.split()) if separator else value
    if "UV_INDEX" in variables:
        # pip takes the best version of all indexes. uv by default takes the first index that has the package.
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in variables.items() if not {name, _ALIASES.get(name, name)} & environ.keys()}


def uv_options(pip: Mapping[str, str]) -> tuple[str, ...]:
    """Settings that uv has only as command-line options."""
    return ("--no-index",) if _is_on(pip.get("no-index")) else ()


def _is_on(value: str | None) -> bool:
    return value is not None and value.strip().lower() not in _FALSE


def _unquoted(value: str) -> str:
    try:
        return str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return value
