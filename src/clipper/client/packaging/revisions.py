"""Resolves an address to its present content without fetching it, to notice changes and to check downloads."""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from clipper.client.packaging import addresses
from clipper.client.packaging.addresses import Address
from clipper.client.packaging.oci import Repository
from clipper.client.packaging.web import STALL_TIMEOUT_S, check_status, web_client
from clipper.errors import InvalidArgument, NotFound, Unavailable


def revision_of(address: Address) -> str:
    """Return a text that changes with the content of an address. Raises InvalidArgument if the address always has the
    same content, or its store does not tell when it changes; NotFound if the store does not have it.
    """
    is_fixed = address.scheme == "oci" and Repository(address).is_pinned
    if address.sha256 is not None or address.scheme == "runs" or is_fixed:
        raise InvalidArgument(
            f"{address.shown} does not change: follow an alias, a branch, `latest` or a file's address"
        )
    if address.scheme in ("http", "https"):
        return _of_web(address)
    if address.scheme == "oci":
        return Repository(address).manifest()[0]
    if address.scheme == "hf":
        return str(hub_info(address).sha)
    if address.scheme == "models":
        return mlflow_version(address)
    return repr(sorted((name, mark(info)) for name, info in listed_files(address)[1].items()))


def _of_web(address: Address) -> str:
    with web_client(address) as client:
        answer = client.head(address.text)
    check_status(address, answer.status_code)
    if not answer.is_success:
        raise Unavailable(f"{address.shown} cannot be looked at: the server answers {answer.status_code}")
    told = [answer.headers.get(name) for name in ("etag", "last-modified")]
    if not any(told):
        raise InvalidArgument(f"{address.shown} tells no ETag and no time, so its changes cannot be noticed")
    return repr(told)


def listed_files(address: Address) -> tuple[Any, dict[str, Mapping[str, Any]]]:
    """Return the file system of an object store, and the files of an address by their names below it."""
    system, root = import_module("fsspec.core").url_to_fs(address.text, skip_instance_cache=True)
    system.invalidate_cache()
    info = system.info(root)
    if info["type"] == "file":
        return system, {"": info}
    found = {name: one for name, one in system.find(root, detail=True).items() if one["type"] == "file"}
    if not found:
        raise FileNotFoundError(root)
    return system, {name.removeprefix(root.rstrip("/") + "/"): one for name, one in found.items()}


def mark(info: Mapping[str, Any]) -> str:
    """Return a value that changes with a file's content, by the keys that file systems use for it."""
    names = ("ETag", "etag", "VersionId", "generation", "md5Hash", "content_md5", "LastModified", "last_modified")
    return repr([info["size"], *(info.get(name) for name in names)])


def hub_info(address: Address, *, with_files: bool = False) -> Any:
    """Return the hub's own description of a repository at a revision. Raises NotFound."""
    hub = import_module("huggingface_hub")
    repository, revision, _ = addresses.read_hub(address)
    try:
        return hub.HfApi().model_info(repository, revision=revision, files_metadata=with_files, timeout=STALL_TIMEOUT_S)
    except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError) as error:
        raise NotFound(f"the hub has no {address.shown}, or shows it only with a token (HF_TOKEN)") from error


def mlflow_version(address: Address) -> str:
    """Return the number of the version of MLflow's registry that an address means. Raises NotFound."""
    check_tracking()
    mlflow = import_module("mlflow")
    name, version = addresses.read_model_version(address)
    client = mlflow.MlflowClient()
    try:
        if version.startswith("@"):
            return str(client.get_model_version_by_alias(name, version[1:]).version)
        if version == "latest":
            return str(max(int(one.version) for one in client.search_model_versions(f"name='{name}'")))
        client.get_model_version(name, version)
    except (mlflow.exceptions.MlflowException, ValueError) as error:
        if getattr(error, "error_code", "RESOURCE_DOES_NOT_EXIST") in _NOT_THERE:
            raise NotFound(f"MLflow's registry has no {address.shown}") from error
        raise
    return version


_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def check_tracking() -> None:
    """Raise InvalidArgument if MLflow's server is not named."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and not os.environ.get("MLFLOW_REGISTRY_URI"):
        raise InvalidArgument("MLflow's server is not known: set MLFLOW_TRACKING_URI, e.g. to http://mlflow:5000")
