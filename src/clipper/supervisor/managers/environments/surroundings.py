"""Which of the server's environment variables an installer, and the package builds that it runs, get."""

from collections.abc import Mapping

# Needed to run at all, and to find the user's files.
_TO_RUN = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "SHELL"}
# Where the user's settings, caches and interpreters are.
_PLACES = {"XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_CACHE_HOME", "XDG_DATA_HOME", "PYENV_ROOT", "NETRC"}
# How to reach the network. Proxies are written in upper and lower case.
_NETWORK = {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
# Read by compilers, which packages without a wheel need.
_COMPILERS = {
    *("CC", "CXX", "CPP", "FC", "AR", "LD", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "FFLAGS", "LDFLAGS", "MAKEFLAGS"),
    *("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "LD_LIBRARY_PATH", "PKG_CONFIG_PATH"),
    *("JAVA_HOME", "CUDA_HOME", "CUDA_PATH", "SOURCE_DATE_EPOCH"),
}
_NAMES = _TO_RUN | _PLACES | _NETWORK | _PROXIES | {name.lower() for name in _PROXIES} | _COMPILERS
_PREFIXES = ("LC_", "PIP_", "UV_", "CMAKE_", "CARGO_", "RUSTUP_")

# They lead to root's own files, which another user cannot read.
_OF_USER = {"HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "NETRC", "PYENV_ROOT", "UV_CACHE_DIR", "PIP_CACHE_DIR"}

# They would lead uv, or the Python that it runs, to another environment than the one that it makes.
_MISLEADING = {"UV_PYTHON", "UV_PROJECT_ENVIRONMENT"}


def for_builds(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that steer installers and compilers. A package's build is a stranger's code: it sees no others."""
    return {
        name: value
        for name, value in environ.items()
        if (name in _NAMES or name.startswith(_PREFIXES)) and name not in _MISLEADING
    }


def of_another_user(environ: Mapping[str, str], home: str) -> dict[str, str]:
    """The variables for an installer that runs as another user, whose home is the folder ``home``."""
    kept = {name: value for name, value in environ.items() if name not in _OF_USER and not name.startswith("XDG_")}
    return kept | {"HOME": home}
