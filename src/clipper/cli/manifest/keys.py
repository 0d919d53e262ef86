"""The keys of the file: the settings by their names in the Python client, and a few keys that only a file has.

A new setting becomes a key here, in the schema and in the page of the file without a further line.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from msgspec import Struct

from clipper.api.schemas import NewKey
from clipper.client.packaging.models import Language
from clipper.settings.application import Link, NewApplication
from clipper.settings.fields import Described, Setting, settings_of
from clipper.settings.pipeline import Step
from clipper.settings.server import ServerSettings
from clipper.settings.version import Deployment
from clipper.values.types import Framework, Loader


class SourceKeys(Struct, frozen=True, kw_only=True):
    """The source of a version's model. Paths are relative to the file."""

    model: Annotated[
        str | None,
        Setting(
            "A model file or folder, its address in a store, module:attribute, or with language binary a program, with "
            "image a Docker image."
        ),
    ] = None
    folder: Annotated[
        Path | None, Setting("The folder with the code of module:attribute.", default="the file's own folder")
    ] = None
    data: Annotated[
        Path | None, Setting("A file or folder that module:Class gets as model_data; a model's second file.")
    ] = None
    language: Annotated[
        Language,
        Setting(
            "The kind of MODEL. python: a file or code; binary: a program or jar that speaks the container protocol; "
            "image: the name of a Docker image that has such a program."
        ),
    ] = "python"
    framework: Annotated[
        Framework | None,
        Setting("The model's framework, if its file cannot be recognised.", default="recognised"),
    ] = None
    requirements: Annotated[
        Path | tuple[str, ...] | None,
        Setting("A requirements file: the model runs in an environment with its packages."),
    ] = None
    credentials: Annotated[
        str | None,
        Setting("A secret of this machine with lines NAME=VALUE, the variables by which the model's store knows you."),
    ] = None


class ArtifactKeys(Struct, frozen=True, kw_only=True):
    """A model that the server has, or that is in ``artifacts/SHA256.tar`` beside the file, as ``export`` names it."""

    sha256: Annotated[str, Setting("SHA-256 of the artifact's tar, in lower-case hex.")]
    loader: Annotated[Loader, Setting("How the model is loaded.")]
    target: Annotated[str, Setting("A path in the artifact, module:attribute, or the name of an image.")]
    data: Annotated[str | None, Setting("A path in the artifact: what the model gets as its data.")] = None
    framework: Annotated[Framework | None, Setting("The model's framework.")] = None
    requirements: Annotated[str | None, Setting("A path in the artifact: the requirements file.")] = None
    needs: Annotated[tuple[str, ...], Setting("The requirements that the model's file states.")] = ()
    source: Annotated[str | None, Setting("The address that the model was fetched from.")] = None


class ApplicationKeys(Struct, frozen=True, kw_only=True):
    """The keys of an application besides its settings."""

    policy_parameters: Annotated[dict[str, Any], Setting("Parameters of the policy, by name.")] = {}
    loss_parameters: Annotated[dict[str, Any], Setting("Parameters of the loss, by name.")] = {}
    folder: Annotated[
        Path | None,
        Setting("The folder with the code of a policy or loss of your own.", default="the file's own folder"),
    ] = None
    code: Annotated[
        str | None, Setting("SHA-256 of an artifact with that code, as clipper export names it, instead of folder.")
    ] = None


class KeyKeys(Struct, frozen=True, kw_only=True):
    """A client's key."""

    from_env: Annotated[str, Setting("The environment variable that has the key: 32 to 512 letters, digits or ._~+/=-")]
    applications: Annotated[
        tuple[str, ...], Setting("The applications that the key is for.", default="all applications")
    ] = ()


Keys = Mapping[str, Described]


# The settings in which a file differs from a command line.
_IN_FILE: Mapping[str, Mapping[str, Any]] = {
    "sample": {"help": "An input that the model must answer before it is ready."},
    "half_life": {"default": "the policy's own"},
}


def _keys(*kinds: type[Struct], without: str = "") -> Keys:
    found: dict[str, Described] = {}
    for one in (each for kind in kinds for each in settings_of(kind) if each.keyword != without):
        setting = replace(one.setting, **_IN_FILE.get(one.keyword, {}))
        if one.default is True and setting.option is not None:
            # The help is of an option that turns it off.
            setting = replace(setting, help=f"With false: {setting.help[0].lower()}{setting.help[1:]}")
        found[one.keyword] = one._replace(setting=setting)
    return MappingProxyType(found)


# A version that is not to become current is named in `versions` beside the current version.
VERSION = _keys(SourceKeys, Deployment, without="make_current")
SERVER = _keys(ServerSettings)
ARTIFACT = _keys(ArtifactKeys)
APPLICATION = _keys(NewApplication, ApplicationKeys, without="steps")
STEP = _keys(Step)
LINK = _keys(Link)
KEY = _keys(KeyKeys, NewKey)

# The JSON schema, in the wheel so that an editor finds it without a network. ``scripts/manifest_pages.py`` writes it.
SCHEMA = Path(__file__).with_name("schema.json")
# Keys whose values are not single settings.
SECTIONS = {
    "server": "The server's own settings: clipper start --config uses them, clipper apply ignores them.",
    "models": "Models by name.",
    "applications": "Applications by name.",
    "keys": "Keys of clients of the query port, by name.",
}
# Settings whose text may hold a secret: ${NAME} in them stands for an environment variable.
WITH_VARIABLES = frozenset({"store", "registry", "env"})
# Types, which may also be a mapping with the type of each field of a record.
TYPES = frozenset({"input_type", "output_type"})
# Texts for people, in which ${NAME} has no meaning.
FREE_TEXTS = frozenset({"description"})


def kinds_of(annotation: Any) -> tuple[Any, ...]:
    """Return the types that a key's value may have; ``Configured`` has its own keys in the file."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return tuple(kind for kind in kinds if not (isinstance(kind, type) and issubclass(kind, Struct)))
