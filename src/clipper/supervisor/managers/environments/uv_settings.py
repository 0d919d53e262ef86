"""The variables and options of uv, from the server's variables and pip's settings; and the meaning of its output."""

import ast
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

# Variables that programs need to run at all, and to find the user's files.
_TO_RUN = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "SHELL"}
# Variables that name the user's settings, caches and interpreters.
_PLACES = {"XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_CACHE_HOME", "XDG_DATA_HOME", "PYENV_ROOT", "NETRC"}
# Variables for reaching the network. Proxies are written in upper and lower case.
_NETWORK = {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
# Variables that compilers read; packages without a wheel need a compiler.
_COMPILERS = {
    *("CC", "CXX", "CPP", "FC", "AR", "LD", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "FFLAGS", "LDFLAGS", "MAKEFLAGS"),
    *("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "LD_LIBRARY_PATH", "PKG_CONFIG_PATH"),
    *("JAVA_HOME", "CUDA_HOME", "CUDA_PATH", "SOURCE_DATE_EPOCH"),
}
_NAMES = _TO_RUN | _PLACES | _NETWORK | _PROXIES | {name.lower() for name in _PROXIES} | _COMPILERS
_PREFIXES = ("LC_", "PIP_", "UV_", "CMAKE_", "CARGO_", "RUSTUP_")

# Variables that lead to root's own files, which another user cannot read.
_OF_USER = {"HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "NETRC", "PYENV_ROOT", "UV_CACHE_DIR", "PIP_CACHE_DIR"}

# Variables that would lead uv, or the Python that it runs, to another environment than it makes.
_MISLEADING = {"UV_PYTHON", "UV_PROJECT_ENVIRONMENT"}


def for_builds(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for installers and compilers. A package's build, which strangers wrote, gets no others."""
    return {
        name: value
        for name, value in environ.items()
        if (name in _NAMES or name.startswith(_PREFIXES)) and name not in _MISLEADING
    }


def of_another_user(environ: Mapping[str, str], home: str) -> dict[str, str]:
    """Return the variables for an installer that runs as another user, whose home is the folder ``home``."""
    kept = {name: value for name, value in environ.items() if name not in _OF_USER and not name.startswith("XDG_")}
    return kept | {"HOME": home}


# Maps a setting of pip to uv's variable, and to the separator between its values.
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
# Older names of uv's variables. If the user has set the old variable, the new one must not contradict it.
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
            with suppress(ValueError, SyntaxError):  # not quoted
                value = str(ast.literal_eval(value))
            found[section][setting] = value
    return {name: value for section in _SECTIONS for name, value in found[section].items()}


def uv_variables(pip: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that give uv pip's indexes, folders, constraints and certificates; ``environ`` wins."""
    variables = {"UV_PRERELEASE": "allow"} if _is_on(pip.get("pre")) else {}
    for setting, (variable, separator) in _VARIABLES.items():
        if value := pip.get(setting, "").strip():
            variables[variable] = separator.join(value.split()) if separator else value
    if "UV_INDEX" in variables:
        # pip takes the best version of all indexes. By default, uv takes the first index that has the package.
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in variables.items() if not {name, _ALIASES.get(name, name)} & environ.keys()}


def uv_options(pip: Mapping[str, str]) -> tuple[str, ...]:
    """Return the settings that uv has only as command-line options."""
    return ("--no-index",) if _is_on(pip.get("no-index")) else ()


def _is_on(value: str | None) -> bool:
    return value is not None and value.strip().lower() not in _FALSE


_RESOLVED = re.compile(r"Resolved (\d+ packages?)")
# uv begins a line about a running step with one of these words, and one about a finished step with a past tense.
_UNDER_WAY = ("Downloading ", "Building ", "Updating ")
_CAUSE = re.compile(r"^\s*(?:cause: |╰─▶ |├─▶ )(.+)")
_ERROR = re.compile(r"^\s*(?:error: |× )(.+)")


def progress_of(line: str) -> str | None:
    """Read the progress from a line: ``installing 12 packages``, ``downloading numpy (15.0MiB)``."""
    line = line.strip()
    if resolved := _RESOLVED.match(line):
        return f"installing {resolved[1]}"
    if line.startswith(_UNDER_WAY):
        return line[0].lower() + line[1:]
    return None


def cause_of(lines: Sequence[str]) -> str:
    """Return why uv failed, in a line: the line that it calls the cause, else its error, else its last line."""
    for pattern in (_CAUSE, _ERROR):
        for line in lines:
            if found := pattern.match(line):
                return found[1].strip()
    return next((line.strip() for line in reversed(lines) if line.strip()), "uv gave no reason")
