"""The facts that a plan is made from: the file's models, packed, and what the server has."""

import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from clipper.api.schemas import Model
from clipper.cli.manifest.document import Fault
from clipper.cli.manifest.manifest import Manifest, WantedApplication, WantedVersion, place_of
from clipper.cli.manifest.plan import Packed
from clipper.cli.manifest.steps import Actual, ActualModel, ActualVersion
from clipper.cli.output import reported
from clipper.client import Clipper
from clipper.client.packaging.artifact import Artifact, Contents, Member, pack
from clipper.client.packaging.models import package, package_code
from clipper.errors import ClipperError, InvalidArgument, NotFound
from clipper.settings.application import NewApplication, configured
from clipper.settings.home import ARTIFACTS_NAME
from clipper.settings.version import Deployment

# The folder beside the file with the tars of artifacts that the file names by their digests.
ARTIFACTS = "artifacts"


def packed_version(version: WantedVersion, folder: Path) -> AbstractContextManager[Artifact]:
    """Pack a version's model, until the block ends; ``folder`` is the file's. Raises ClipperError if that fails."""
    if version.artifact is not None:
        fields = {name: value for name, value in version.artifact.items() if name != "sha256"}
        return _named_artifact(version.artifact["sha256"], folder, **fields)
    source = dict(version.source)
    model, code = source.pop("model"), source.pop("folder", None)
    # The file's own name may have a colon.
    is_name = source.get("language") == "image" or (":" in model and not (folder / model).exists())
    return package(model if is_name else str(folder / model), folder=code or folder, **source)


def packed_code(application: WantedApplication, folder: Path) -> AbstractContextManager[Artifact | None]:
    """Pack an application's own policy or loss; None if it has none, or it is installed. Raises ClipperError."""
    targets = [target for kind in ("policy", "loss") if ":" in (target := application.settings.get(kind, ""))]
    if not targets:
        return nullcontext(None)
    if code := application.settings.get("code"):
        return _named_artifact(code, folder, loader="import", target=targets[0])
    artifact = package_code(targets, application.folder)
    if artifact is None:
        raise InvalidArgument(f"the code of {', '.join(targets)} is not in {application.folder}: name its folder")
    return artifact


def _named_artifact(sha256: str, folder: Path, **fields: Any) -> AbstractContextManager[Artifact]:
    """Open an artifact that was packed before, so its file stays."""
    path = folder / ARTIFACTS / f"{sha256}.tar"
    size_bytes = path.stat().st_size if path.is_file() else 0
    return nullcontext(Artifact(path=path, digest=sha256, size_bytes=size_bytes, **fields))


def pack_all(wanted: Manifest, folder: Path, clipper: Clipper) -> tuple[Packed, list[Fault]]:
    """Pack each model and each policy's code once, to know their digests; the packed files are removed again.

    The server checks each like a deployment or creation, so that nothing is begun that cannot be done.
    """
    faults: list[Fault] = []
    manager = clipper.status().manager
    versions: dict[str, dict[str, Any]] = {}
    for version in (one for model in wanted.models or () for one in model.versions):
        try:
            with packed_version(version, folder) as artifact:
                _check_is_there(artifact, clipper)
                with suppress(NotFound):  # an older server checks nothing
                    clipper.check_deployment(artifact, version=version.name, **version.settings)
                versions[version.path] = artifact.deployed | {"manager": manager}
        except ClipperError as error:
            faults.append(Fault(version.place, version.path, str(error)))
    codes: dict[str, str] = {}
    for application in wanted.applications or ():
        try:
            with packed_code(application, folder) as code:
                if code is not None:
                    _check_is_there(code, clipper)
                    codes[application.name] = code.digest
                with suppress(NotFound):  # as above
                    clipper.check_application(new_application(application, codes.get(application.name)))
        except ClipperError as error:
            faults.append(Fault(place_of(application, str(error)), application.path, str(error)))
    return Packed(versions, codes), faults


def new_application(wanted: WantedApplication, code: str | None) -> NewApplication:
    """Return the file's application in the form that a server takes."""
    given = configured({name: value for name, value in wanted.settings.items() if name != "code"})
    return NewApplication(name=wanted.name, links=wanted.links, code=code, **given)


def _check_is_there(artifact: Artifact, clipper: Clipper) -> None:
    if not artifact.path.is_file() and not clipper.has_artifact(artifact.digest):
        raise NotFound(
            f"neither the server has the artifact {artifact.digest}, nor is it at {artifact.path}: name the model's "
            "own file or code instead"
        )


def ask_actual(clipper: Clipper) -> Actual:
    keys = clipper.keys()
    return Actual(
        {model.name: _actual(model, clipper.deployments(model.name)) for model in clipper.models()},
        {application.name: application for application in clipper.applications()},
        {key.name: key for key in keys},
        clipper.status().manager,
    )


def ask_model(clipper: Clipper, name: str) -> ActualModel:
    """Raise NotFound if there is no such model."""
    return _actual(clipper.model(name), clipper.deployments(name))


def _actual(model: Model, deployments: Mapping[str, Deployment]) -> ActualModel:
    """Return a model on the server. A version that was made or deleted between the two calls is left out."""
    shown = {version.version: version for version in model.versions}
    versions = {
        version: ActualVersion(shown[version].state, deployment, shown[version].stopped)
        for version, deployment in deployments.items()
        if version in shown
    }
    return ActualModel(model.current if model.current in versions else None, versions)


def write_artifact(home: Path, sha256: str, folder: Path) -> None:
    """Write ``SHA256.tar`` into ``folder``, unless it is there.

    Raises NotFound if the home does not have the artifact; InvalidArgument if Clipper has not packed it, so that its
    tar cannot be made again, or if a file cannot be written.
    """
    source, target = home / ARTIFACTS_NAME / sha256, folder / f"{sha256}.tar"
    if target.exists():
        return
    if not source.is_dir():
        raise NotFound(f"the artifact {sha256} is not in {home}: run this on the server's machine, as its user")
    # An artifact's own files are sealed: a writable file, such as Python's bytecode cache, was added later.
    members = tuple(
        Member(path.relative_to(source).as_posix(), path, is_program=bool(mode & 0o100))
        for path in source.rglob("*")
        if path.is_file() and not (mode := path.stat().st_mode) & 0o222
    )
    # The tar does not record how it is loaded.
    with pack(Contents("file", "", members=members)) as artifact:
        if artifact.digest != sha256:
            raise InvalidArgument(
                f"the artifact {sha256} was packed by another program: deploy its model from its own file"
            )
        with reported(target, "written"):
            folder.mkdir(parents=True, exist_ok=True)
            # The final name is given only to a complete file.
            partial = target.with_suffix(".partial")
            shutil.copyfile(artifact.path, partial)
            partial.replace(target)
