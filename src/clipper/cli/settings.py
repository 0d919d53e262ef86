"""Make options of commands from settings.

A command declares a parameter for a group of settings, and gets the given settings by keyword, as the Python client
takes them::

    @with_settings(settings=options_of(Deployment))
    def deploy(name: Name, *, settings: Given, home: Home = None) -> None:
"""

import inspect
from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import typer
from msgspec import NODEFAULT, UNSET, Struct

from clipper.cli.options import names_starting, number, one_of
from clipper.errors import InvalidArgument
from clipper.settings.application import LOSS_NAMES, POLICY_NAMES
from clipper.settings.fields import Described, Setting, settings_of
from clipper.settings.texts import text_of

Given = dict[str, Any]

# The subjects of settings, as headings in help and in what commands show, and the keywords of each.
_SUBJECTS = {
    "Inputs and outputs": (
        "input_type output_type output sample null_is_nan nan_as_text ignore_unknown_fields default_output show_model"
    ),
    "Deadlines and clients": "slo_ms waking_slo_ms wait require_key max_in_flight max_per_second",
    "Batches and cache": "batching max_batch batch_delay_ms cache",
    "Replicas and what they may use": (
        "replicas max_replicas start_timeout_s memory_bytes cpus gpus gpu_memory_bytes precision resources placement "
        "manager"
    ),
    "Files, packages and variables": "data language framework requirements python env secrets credentials",
    "Selection of models": (
        "policy features prior_weight inherit half_life cost_weight max_cost_per_query min_quality "
        "confidence_threshold confidence_from calibrate"
    ),
    "New versions": "ramp max_loss_increase make_current",
    "Feedback": "loss label_field feedback_ttl_s log_decisions log_inputs redact",
    "Ports and TLS": (
        "host management_host allowed_host insecure open_metrics api_keys allowed_origin tls_cert tls_key "
        "tls_client_ca query_port grpc_port management_port"
    ),
    "Processes": "workers workers_per_node run_as start_method idle_after_s ready_when drain_delay_s",
    "Bounds": (
        "cache_bytes max_body_bytes max_output_bytes max_contexts feedback_queries keep_versions keep_previous"
        " decision_log_bytes"
    ),
    "Where state is kept": "store registry remember_in_store",
    "Docker and Ray": "docker_base_image docker_network docker_transport ray_address ray_ports ray_python",
    "Logs and traces": "log_format log_level access_log slow_query_ms otlp_endpoint trace_share",
}
# Settings with possibly long texts: @FILE and - read them.
_LONG = frozenset({"input_type", "output_type", "description"})
_NAMES = {"policy": POLICY_NAMES, "loss": LOSS_NAMES}
SUBJECT_OF = {keyword: subject for subject, keywords in _SUBJECTS.items() for keyword in keywords.split()}


class Option(NamedTuple):
    """An option of a command.

    Attributes:
        flag: its name, with dashes.
        parameter: the parameter from which typer makes it.
        read: turns the value that typer read into the setting's value; None if that is the same.
    """

    keyword: str
    flag: str
    setting: Setting
    parameter: inspect.Parameter
    read: Callable[[Any], Any] | None


def options_of(
    kind: type[Struct],
    *,
    only: Collection[str] = (),
    without: Collection[str] = (),
    to_change: bool = False,
) -> list[Option]:
    """Make an option for each setting of a struct.

    Args:
        only, without: keywords of the settings to take, or to leave out.
        to_change: whether the options change something, so that they have no default: settings that are left out stay.
    """
    return [
        _option(described, to_change)
        for described in settings_of(kind)
        if (not only or described.keyword in only)
        and described.keyword not in without
        and described.setting.option != ""
    ]


def with_settings(**groups: list[Option]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace each parameter of a command that has the name of a group by the options of that group."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**values: Any) -> None:
            for group, options in groups.items():
                values[group] = {
                    option.keyword: _read(option, value)
                    for option in options
                    if (value := values.pop(option.keyword)) not in (None, [])
                }
            command(**values)

        parameters = [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for own in inspect.signature(command).parameters.values()
            for each in ([option.parameter for option in groups[own.name]] if own.name in groups else [own])
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # which typer reads
        return run

    return decorate


def _read(option: Option, value: Any) -> Any:
    setting = option.setting
    try:
        read = value if option.read is None else option.read(value)
        setting.check(option.keyword, read)
        return read
    except InvalidArgument as error:
        variable = "" if setting.environment is None else f" (env var: '{setting.environment}')"
        raise typer.BadParameter(str(error), param_hint=f"'{option.flag}'{variable}") from error


def _option(described: Described, to_change: bool) -> Option:
    """The kind of option follows from the setting's type, unless the setting has a ``read`` of its own."""
    setting, default = described.setting, described.default
    flag = described.flag
    kinds = get_args(described.type) if get_origin(described.type) in (Union, UnionType) else (described.type,)
    kind = next(each for each in kinds if each is not NoneType)
    # An option that is not given is None, and the struct's default applies.
    begins = None if to_change or setting.default or default in (None, UNSET, NODEFAULT) else default
    looks: dict[str, Any] = {
        "help": setting.help,
        "envvar": setting.environment,
        "rich_help_panel": SUBJECT_OF.get(described.keyword),
        "show_default": not to_change and (setting.default or True),
    }
    if described.keyword in _NAMES:
        looks["autocompletion"] = names_starting(_NAMES[described.keyword])
    read: Callable[[Any], Any] | None = text_of if described.keyword in _LONG else None
    option = typer.Option(flag, metavar=setting.metavar, **looks)
    if get_origin(kind) is tuple:
        read_one = setting.read or str
        kind, begins, read = list[str], None, lambda values: tuple(map(read_one, values))
    elif setting.several:
        read_part = setting.read or dict
        kind, begins = list[str], None
        read = lambda texts: {name: value for text in texts for name, value in read_part(text).items()}  # noqa: E731
    elif setting.read is not None:
        kind, begins, read = str, None if begins is None else str(begins), setting.read
    elif kind is bool:
        begins = None
        if setting.option is not None:
            option, read = typer.Option(flag, **looks), lambda _: not default
        else:
            option = typer.Option(f"{flag}/--no-{flag[2:]}", **{**looks, "show_default": not to_change and "no"})
    elif get_origin(kind) is Literal:
        option = one_of(kind, flag, **looks)
    elif kind in (int, float):
        looks |= {} if setting.metavar is None else {"metavar": setting.metavar}
        option = number(kind, flag, least=setting.least, most=setting.most, above=setting.above, **looks)
    else:
        # The code that opens the file reports its faults.
        metavar = setting.metavar or ("FILE" if kind is Path else None)
        option = typer.Option(flag, metavar=metavar, readable=False, **looks)
    parameter = inspect.Parameter(
        described.keyword, inspect.Parameter.KEYWORD_ONLY, default=begins, annotation=Annotated[kind | None, option]
    )
    return Option(described.keyword, flag, setting, parameter, read)
