from clipper.supervisor.managers.environments.uv_settings import for_builds


def test_only_what_steers_installers_and_compilers_is_passed_on() -> None:
    wanted = {
        "PATH": "p",
        "HOME": "h",
        "LC_ALL": "C",
        "PIP_INDEX_URL": "i",
        "UV_INDEX": "i",
        "https_proxy": "x",
        "NO_PROXY": "x",
        "SSL_CERT_FILE": "c",
        "CFLAGS": "-O2",
        "XDG_CACHE_HOME": "x",
    }
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "s",
        "CLIPPER_STORE": "redis://:password@host/0",
        "DATABASE_URL": "s",
        "GITHUB_TOKEN": "s",
        "PYTHONPATH": "x",
        "VIRTUAL_ENV": "x",
        "UV_PYTHON": "x",
        "LD_PRELOAD": "x",
    }
    assert for_builds(wanted | secrets) == wanted
