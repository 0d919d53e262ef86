"""What an installer, and the builds of packages that it runs, get of the server's own environment."""

from collections.abc import Mapping

# To run at all, and to be reached by whoever looks for a user's files.
_TO_RUN = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "SHELL"}
# Where a user's settings, caches and interpreters are.
_PLACES = {"XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_CACHE_HOME", "XDG_DATA_HOME", "PYENV_ROOT", "NETRC"}
# The way to the network; proxies are written either way.
_NETWORK = {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
# What compilers of packages without a wheel go by.
_COMPILERS = {
    *("CC", "CXX", "CPP", "FC", "AR", "LD", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "FFLAGS", "LDFLAGS", "MAKEFLAGS"),
    *("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "LD_LIBRARY_PATH", "PKG_CONFIG_PATH"),
    *("JAVA_HOME", "CUDA_HOME", "CUDA_PATH", "SOURCE_DATE_EPOCH"),
}
_NAMES = _TO_RUN | _PLACES | _NETWORK | _PROXIES | {name.lower() for name in _PROXIES} | _COMPILERS
_PREFIXES = ("LC_", "PIP_", "UV_", "CMAKE_", "CARGO_", "RUSTUP_")

# Where root's own files are, which another user is not let into. Its settings are read there too.
_OF_USER = {"HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "NETRC", "PYENV_ROOT", "UV_CACHE_DIR", "PIP_CACHE_DIR"}

# What leads uv, or the Python that it runs, to another environment than the one that is made.
_MISLEADING = {"UV_PYTHON", "UV_PROJECT_ENVIRONMENT"}


def for_builds(environ: Mapping[str, str]) -> dict[str, str]:
    """Those variables that steer installers and compilers, and no others: a package's build is a stranger's code."""
    return {
        name: value
        for name, value in environ.items()
        if (name in _NAMES or name.startswith(_PREFIXES)) and name not in _MISLEADING
    }


def of_another_user(environ: Mapping[str, str], home: str) -> dict[str, str]:
    """The same variables for an installer that runs as another user, whose files are in the folder ``home``."""
    kept = {name: value for name, value in environ.items() if name not in _OF_USER and not name.startswith("XDG_")}
    return kept | {"HOME": home}
