"""The content of the file: server, models, applications and keys, read from the tree with all faults at once."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from clipper.cli.manifest import keys
from clipper.cli.manifest.document import Entries, Fault, Items, Node, Place, Scalar, read_document
from clipper.cli.manifest.keys import SourceKeys
from clipper.cli.manifest.values import Values
from clipper.errors import Conflict, InvalidArgument
from clipper.settings.application import Link
from clipper.settings.fields import settings_of
from clipper.settings.pipeline import Step, Wiring, read_graph
from clipper.settings.server import PATH_SCHEMES
from clipper.values.records import parse_type
from clipper.values.types import check_name

_SOURCE = tuple(one.keyword for one in settings_of(SourceKeys))
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{32,512}")


@dataclass(frozen=True, slots=True)
class WantedVersion:
    """A version of a model.

    Attributes:
        name: None means any version that equals this one.
        source: the model's source: values by the names of ``SourceKeys``; empty with ``artifact``.
        artifact: values by the names of ``ArtifactKeys``; None with ``source``.
        settings: the settings that the file gives, as keywords of ``Clipper.deploy``.
    """

    name: str | None
    source: Mapping[str, Any]
    artifact: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    place: Place
    path: str


@dataclass(frozen=True, slots=True)
class WantedModel:
    """A model. The last of ``versions`` shall be current."""

    name: str
    versions: tuple[WantedVersion, ...]


@dataclass(frozen=True, slots=True)
class WantedApplication:
    """An application. ``settings`` are those that the file gives, as keywords of ``Clipper.create_application``.

    ``places`` are those of parts of a pipeline, by the paths with which messages about them begin.
    """

    name: str
    links: tuple[Link, ...]
    settings: Mapping[str, Any]
    folder: Path
    place: Place
    path: str
    places: Mapping[str, Place] = field(default_factory=dict)

    @property
    def steps(self) -> Mapping[str, Step]:
        steps: Mapping[str, Step] = self.settings.get("steps", {})
        return steps

    @property
    def models(self) -> frozenset[str]:
        return frozenset(link.model for link in self.links)


@dataclass(frozen=True, slots=True)
class WantedKey:
    """A key of the query port. ``key`` is a secret, and is not shown."""

    name: str
    key: str = field(repr=False)
    applications: tuple[str, ...]
    limits: Mapping[str, Any]
    place: Place
    path: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a file. A section that the file does not have is None: the file does not decide it."""

    # The settings may hold the store's password, so the repr leaves them out.
    server: Mapping[str, Any] | None = field(default=None, repr=False)
    models: tuple[WantedModel, ...] | None = None
    applications: tuple[WantedApplication, ...] | None = None
    keys: tuple[WantedKey, ...] | None = None


def read_manifest(
    content: bytes, folder: Path, environment: Mapping[str, str], pipeline: str | None = None
) -> tuple[Manifest, list[Fault]]:
    """Read a file; the result is complete only if there are no faults.

    ``folder`` is the file's, to which its paths are relative. ``environment`` has the variables that it may refer to.
    With ``pipeline`` the file has only the keys of an application of that name, which has steps.
    """
    root, faults = read_document(content)
    if root is None:
        return Manifest(), faults
    reader = _Reader(folder, environment, faults)
    if pipeline is None:
        return reader.manifest(root), faults
    applications = reader.applications(Scalar(pipeline, True, root.place), root)
    if not faults and not applications[-1].steps:
        faults.append(Fault(root.place, "", "expected steps"))
    return Manifest(applications=applications), faults


class _Reader:
    def __init__(self, folder: Path, environment: Mapping[str, str], faults: list[Fault]) -> None:
        self._values = Values(folder, environment, faults)
        self._folder = folder

    def manifest(self, root: Node) -> Manifest:
        if not isinstance(root, Entries):
            self._values.fault(root.place, "", f"expected the sections {', '.join(keys.SECTIONS)}")
            return Manifest()
        sections: dict[str, Any] = {}
        readers: dict[str, Callable[[Scalar, Node], tuple[Any, ...]]] = {
            "models": lambda name, node: (self._model(name, node),),
            "applications": self.applications,
            "keys": lambda name, node: (self._key(name, node),),
        }
        for key, node in root.entries:
            section = key.text
            if section == "server":
                sections[section] = self._server(node)
            elif (read := readers.get(section)) is not None:
                entries = self._values.entries(node, section, f"{section} by name")
                names = [name.text for name, _ in entries]
                sections[section] = tuple(
                    one
                    for index, (name, body) in enumerate(entries)
                    if self._is_name(name, section[:-1], section, names[:index])
                    for one in read(name, body)
                )
                self._check_once(sections[section], section)
            else:
                self._values.unknown(key, "", tuple(keys.SECTIONS))
        return Manifest(**sections)

    def _is_name(self, name: Scalar, kind: str, path: str, others: Sequence[str] = ()) -> bool:
        """``others``: the names before it."""
        try:
            check_name(kind, name.text, others)
        except (InvalidArgument, Conflict) as error:
            self._values.fault(name.place, path, str(error))
            return False
        return True

    def _server(self, node: Node) -> dict[str, Any]:
        found = self._values.settings(node, "server", keys.SERVER)
        for name, kind in itertools.product(keys.WITH_VARIABLES, PATH_SCHEMES):
            address = found.get(name)
            if address is not None and address.startswith(kind):
                found[name] = f"{kind}{self._folder / address.removeprefix(kind)}"
        return found

    def _model(self, name: Scalar, node: Node) -> WantedModel:
        path = f"models.{name.text}"
        if _entry(node, "versions") is None:
            if (current := _entry(node, "current")) is not None:
                self._values.fault(current.place, f"{path}.current", "expected versions beside it")
            return WantedModel(name.text, (self._version(None, node, path, name.place),))
        return WantedModel(name.text, self._versions(node, path))

    def _versions(self, node: Node, path: str) -> tuple[WantedVersion, ...]:
        found: dict[str, WantedVersion] = {}
        current: Scalar | None = None
        for key, value in self._values.entries(node, path, "settings"):
            if key.text == "versions":
                for name, body in self._values.entries(value, f"{path}.versions", "versions by name"):
                    if self._is_name(name, "version", f"{path}.versions", tuple(found)):
                        where = f"{path}.versions.{name.text}"
                        found[name.text] = self._version(name.text, body, where, name.place)
                if not found:
                    self._values.fault(value.place, f"{path}.versions", "expected one version or more")
            elif key.text == "current":
                self._values.text(value, f"{path}.current")
                current = value if isinstance(value, Scalar) else None
            elif key.text in keys.VERSION or key.text == "artifact":
                self._values.fault(key.place, path, f"{key.text} goes into each of versions")
            else:
                self._values.unknown(key, path, (*keys.VERSION, "artifact", "versions", "current"))
        chosen = current.text if current is not None else next(iter(found), "") if len(found) == 1 else None
        if chosen is None and found:
            self._values.fault(node.place, path, f"expected current, one of {', '.join(found)}")
        elif chosen not in found and current is not None:
            self._values.fault(current.place, f"{path}.current", f"expected one of {', '.join(found)}")
        return (*(one for name, one in found.items() if name != chosen), *([found[chosen]] if chosen in found else []))

    def _version(self, name: str | None, node: Node, path: str, place: Place) -> WantedVersion:
        settings = self._values.settings(node, path, keys.VERSION, ("artifact",))
        if name is not None and "version" in settings:
            self._values.fault(place, path, "the version has its name already: leave version out")
        name = name or settings.pop("version", None)
        if name is not None:
            self._is_name(Scalar(name, True, place), "version", path)
        self._check_type(settings, node, path)
        source = {key: value for key in _SOURCE if (value := settings.pop(key, None)) is not None}
        body = _entry(node, "artifact")
        artifact = None if body is None else self._artifact(body, f"{path}.artifact")
        if (body is None) == ("model" not in source):
            both = " and not both" if body is not None else ""
            self._values.fault(place, path, f"expected model or artifact{both}")
        elif body is not None and source:
            self._values.fault(place, path, f"{', '.join(source)} and artifact do not go together")
        return WantedVersion(name, source, artifact, settings, place, path)

    def _artifact(self, node: Node, path: str) -> dict[str, Any]:
        found = self._values.settings(node, path, keys.ARTIFACT)
        self._check_given(found, ("sha256", "loader", "target"), node, path)
        if "sha256" in found and not _DIGEST.fullmatch(found["sha256"]):
            self._values.fault(node.place, f"{path}.sha256", "expected 64 of 0-9 and a-f")
        return found

    def _check_once(self, found: Sequence[Any], section: str) -> None:
        """Add a fault for an application that is named by itself and by a step of a pipeline."""
        for index, one in enumerate(found):
            if any(one.name == other.name for other in found[:index]):
                self._values.fault(one.place, one.path, f"{section} has {one.name} already")

    def applications(self, name: Scalar, node: Node) -> tuple[WantedApplication, ...]:
        """Read an application; before it come those that the steps of a pipeline have of their own."""
        path = f"applications.{name.text}"
        steps = _entry(node, "steps")
        if steps is None:
            return (self._application(name, node, path),)
        own: list[WantedApplication] = []
        wired: dict[str, Step] = {}
        places: dict[str, Place] = {"steps": steps.place}
        slo = _entry(node, "slo_ms")
        for step, body in self._values.entries(steps, f"{path}.steps", "steps by name"):
            where, given = f"{path}.steps.{step.text:.100}", self._values.entries(body, path, "settings of a step")
            places |= {f"steps.{step.text}": step.place}
            places |= {f"steps.{step.text}.{key.text}": value.place for key, value in given}
            wired[step.text], settings = self._step(step, given, where)
            if settings:
                if slo is not None and all(key.text != "slo_ms" for key, _ in settings):
                    settings = (*settings, (Scalar("slo_ms", True, step.place), slo))
                own_name = Scalar(f"{name.text}.{step.text}", True, step.place)
                if self._is_name(own_name, "application", where):
                    own.append(self._application(own_name, Entries(settings, body.place), where))
        pipeline = self._application(name, node, path, is_pipeline=True)
        if (output := _entry(node, "output")) is not None:
            places["output"] = output.place
            self._converted(pipeline.settings.get("output"), Wiring | None, output.place, f"{path}.output")
        pipeline = replace(pipeline, settings={**pipeline.settings, "steps": wired}, places=places)
        if not self._values.faults:
            try:
                read_graph(name.text, wired, pipeline.settings.get("output"))
            except InvalidArgument as error:
                self._values.fault(place_of(pipeline, str(error)), path, str(error))
        return (*own, pipeline)

    def _step(
        self, name: Scalar, given: tuple[tuple[Scalar, Node], ...], path: str
    ) -> tuple[Step, tuple[tuple[Scalar, Node], ...]]:
        """Return a step, and the settings of an application of its own; none if it has no such application."""
        known = (*keys.STEP, *keys.APPLICATION, "links")
        for key, _ in given:
            if key.text not in known:
                self._values.unknown(key, path, known)
        settings = tuple((key, value) for key, value in given if key.text in known and key.text not in keys.STEP)
        wiring = tuple((key, value) for key, value in given if key.text in keys.STEP)
        values = self._values.settings(Entries(wiring, name.place), path, keys.STEP)
        if settings and "application" in values:
            self._values.fault(settings[0][0].place, path, "it goes without application, which has its own")
        return self._converted(values, Step, name.place, path) or Step(), settings

    def _converted(self, values: Any, kind: Any, place: Place, path: str) -> Any:
        try:
            return msgspec.convert(values, kind)
        except msgspec.ValidationError as error:
            self._values.fault(place, path, str(error))
            return None

    def _application(self, name: Scalar, node: Node, path: str, *, is_pipeline: bool = False) -> WantedApplication:
        found = self._values.settings(node, path, keys.APPLICATION, ("links", "steps"))
        self._check_type(found, node, path)
        links = _entry(node, "links")
        read = self._links(links, f"{path}.links") if links is not None else ()
        for kind in ("policy", "loss"):
            if f"{kind}_parameters" in found and kind not in found:
                self._values.fault(node.place, f"{path}.{kind}_parameters", f"expected {kind} beside it")
        if not read and not is_pipeline and found.get("input_type") is None:
            self._values.fault(name.place, path, "an application without links needs input_type, e.g. float64[784]")
        if (code := found.get("code")) is not None and not _DIGEST.fullmatch(code):
            self._values.fault(node.place, f"{path}.code", "expected 64 of 0-9 and a-f")
        folder = found.pop("folder", None) or self._folder
        return WantedApplication(name.text, read, found, folder, name.place, path)

    def _links(self, node: Node, path: str) -> tuple[Link, ...]:
        links: dict[tuple[str, str | None], Link] = {}
        for index, item in enumerate(self._values.items(node, path, "models")):
            where = f"{path}[{index}]"
            link = self._link(item, where)
            if link is None:
                continue
            if (link.model, link.version) in links:
                self._values.fault(item.place, where, "this link is in the list already")
            links[link.model, link.version] = link
        return tuple(links.values())

    def _link(self, node: Node, path: str) -> Link | None:
        if isinstance(node, Entries):
            found = self._values.settings(node, path, keys.LINK)
            self._check_given(found, ("model",), node, path)
            if "model" not in found:
                return None
        elif isinstance(node, Items) or node.is_null:
            self._values.fault(node.place, path, "expected NAME, NAME:VERSION, or model with version, shadow or cost")
            return None
        else:
            found = {"model": node.text}
        name, colon, version = found["model"].partition(":")
        if colon and found.get("version") is not None:
            self._values.fault(node.place, path, f"{found['model']} has a version already: leave version out")
        link = Link(**{**found, "model": name, "version": version if colon else found.get("version")})
        is_valid = self._is_name(Scalar(link.model, True, node.place), "model", path)
        if link.version is not None:
            is_valid &= self._is_name(Scalar(link.version, True, node.place), "version", path)
        return link if is_valid else None

    def _key(self, name: Scalar, node: Node) -> WantedKey:
        path = f"keys.{name.text}"
        found = self._values.settings(node, path, keys.KEY)
        self._check_given(found, ("from_env",), node, path)
        secret = ""
        if variable := found.pop("from_env", None):
            place = (_entry(node, "from_env") or node).place
            secret = self._values.variable(variable, place, f"{path}.from_env")
            if secret and not _KEY.fullmatch(secret):
                self._values.fault(
                    place,
                    f"{path}.from_env",
                    "the variable's key is not valid: expected 32 to 512 letters, digits or ._~+/=-",
                )
        applications = tuple(sorted(set(found.pop("applications", ()))))
        return WantedKey(name.text, secret, applications, found, name.place, path)

    def _check_given(self, found: Mapping[str, Any], names: tuple[str, ...], node: Node, path: str) -> None:
        for name in names:
            if name not in found and _entry(node, name) is None:
                self._values.fault(node.place, path, f"expected {name}")

    def _check_type(self, found: Mapping[str, Any], node: Node, path: str) -> None:
        if (text := found.get("input_type")) is None:
            return
        try:
            parse_type(text)
        except InvalidArgument as error:
            self._values.fault((_entry(node, "input_type") or node).place, f"{path}.input_type", str(error))


def place_of(application: WantedApplication, message: str) -> Place:
    """Return the place of a message about an application: that of the longest path with which it begins."""
    begins = [path for path in application.places if message.startswith((f"{path}:", f"{path}.", f"{path} "))]
    return application.places[max(begins, key=len)] if begins else application.place


def _entry(node: Node, name: str) -> Node | None:
    entries = node.entries if isinstance(node, Entries) else ()
    return next((value for key, value in entries if key.text == name), None)
