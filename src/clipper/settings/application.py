"""The settings of an application: how it selects among its models and learns, and who may ask it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import UNSET, Struct, UnsetType

from clipper.errors import InvalidArgument
from clipper.settings.fields import Setting, changes_of
from clipper.settings.pipeline import MAX_STEPS, Step, Wiring
from clipper.settings.replicas import MAX_REPLICAS
from clipper.settings.texts import (
    INPUT_TYPE_HELP,
    number_or_none,
    read_cost,
    read_features,
    read_json_or_file,
    read_text_or_none,
)
from clipper.values.types import MAX_FEATURES

Wait = Literal["all", "decided", "expected"]
ConfidenceFrom = Literal["agreement", "probabilities"]
# How many numbers each query brings as features; ``input``, or the names of a record's fields, if they are the input.
Features = int | str | None
Cost = float | Literal["auto"]
LogInputs = Literal["off", "sampled"]

MAX_SLO_MS = 600_000.0
# Later feedback would concern a model that is likely gone. Ids of feedback are kept for as long.
MAX_FEEDBACK_TTL_S = 7 * 24 * 3600.0
# More than years of feedback: instead of a larger number, set no half-life.
MAX_OBSERVATIONS = 10**9
# With a larger share, the newcomer would get more than all others.
MAX_RAMP = 0.5
# Bounds a cost and its weight, so that a state can hold their product and its sums.
MAX_COST = 1e6
# No worker has more in flight at once, or answers more in a second: instead of a larger limit, set none.
MAX_IN_FLIGHT = 1_000_000
MAX_PER_SECOND = 1_000_000
# One query in a quarter of an hour; a smaller limit would admit almost no queries.
MIN_PER_SECOND = 0.001


# Limits of an application, or of a key.
MaxInFlight = Annotated[
    int | None,
    number_or_none(
        "How many queries may be in flight at once; none means no limit.",
        least=1,
        most=MAX_IN_FLIGHT,
        default="none",
        whole=True,
    ),
]
MaxPerSecond = Annotated[
    float | None,
    number_or_none(
        "How many queries are let in each second; none means no limit.",
        least=MIN_PER_SECOND,
        most=MAX_PER_SECOND,
        default="none",
    ),
]

# Clipper's own policies and losses, as learning/ finds them by name. They are repeated here for commands, which do not
# load the learning code.
POLICY_NAMES = (
    "single", "weighted", "adaptive", "best_arm", "epsilon_greedy", "ucb1", "thompson", "exp3", "exp4", "ensemble",
    "stacking", "linucb", "linear_thompson", "cascade",
)  # fmt: skip
LOSS_NAMES = ("zero_one", "absolute", "squared", "log")


class Link(Struct, frozen=True):
    """A model that an application may ask: its current version, or the pinned one.

    A ``shadow`` model is asked each query and scored by feedback, but never answers. ``cost`` is the cost of asking it
    once, in a unit of the user's choice; ``auto`` is measured, in milliseconds of a replica; None if it is not known.
    """

    model: Annotated[str, Setting("The model's name.")]
    version: Annotated[str | None, Setting("The version to stay with.", default="the current one")] = None
    shadow: Annotated[bool, Setting("Ask and score the model, but never answer with it.", option="shadow")] = False
    cost: Annotated[
        Cost | None,
        Setting(
            "Cost of asking the model once, in any unit; auto is measured.",
            least=0,
            most=MAX_COST,
            default="none",
            read=read_cost,
        ),
    ] = None

    @property
    def target(self) -> str:
        """The text ``MODEL``, or ``MODEL:VERSION`` if the version is pinned."""
        return self.model if self.version is None else f"{self.model}:{self.version}"

    def __str__(self) -> str:
        cost = "" if self.cost is None else f" (cost {self.cost if self.cost == 'auto' else format(self.cost, 'g')})"
        return self.target + (" (shadow)" if self.shadow else "") + cost


def link_names(links: Sequence[Link]) -> tuple[str, ...]:
    """Return the name of each link in policies, parameters and metrics.

    It is the model's name, or ``MODEL:VERSION`` for a pinned version if several versions of the model are linked.
    """
    links_of = Counter(link.model for link in links)
    return tuple(link.model if links_of[link.model] == 1 else link.target for link in links)


class Configured(Struct, frozen=True, forbid_unknown_fields=True):
    """A policy or a loss: its name, ``module:attribute`` for a user's own, and the parameters that are no defaults."""

    name: str
    # Litestar's schema does not accept a dict as a default.
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)


def configured(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a client's keywords as fields of the wire, where a policy or loss contains its parameters.

    Raises InvalidArgument if there are parameters of a policy or loss that is not named.
    """
    values = dict(options)
    for kind in ("policy", "loss"):
        parameters = values.pop(f"{kind}_parameters", None)
        if kind in values:
            values[kind] = Configured(values[kind], dict(parameters or {}))
        elif parameters:
            raise InvalidArgument(f"{kind}_parameters go with a {kind}: name it, even if it stays the same")
    return values


class SelectionSettings(Struct, frozen=True, kw_only=True):
    """Settings of selection that applications, changes, workers and registry share: docs/configuration.md."""

    wait: Annotated[
        Wait,
        Setting("How long an answer of several models waits: for all, for those expected in time, or until decided."),
    ] = "expected"
    features: Annotated[
        Features,
        Setting(
            "How many numbers each query brings for its policy; input means the input itself, and "
            "names such as age,income mean these fields of a record.",
            least=1,
            most=MAX_FEATURES,
            metavar="N|input|FIELDS|none",
            default="none",
            read=read_features,
        ),
    ] = None
    prior_weight: Annotated[
        float,
        Setting(
            "In a new context, the learned state of all contexts counts as this many observations.",
            least=0,
            most=MAX_OBSERVATIONS,
        ),
    ] = 10.0
    inherit: Annotated[
        float,
        Setting("The share of a version's learned state that counts for its successor, from 0 to 1.", least=0, most=1),
    ] = 0.02
    ramp: Annotated[
        float | None,
        number_or_none(
            "Share of the queries for a new link or version until feedback has shown its worth; none means no ramp.",
            least=0,
            above=True,
            most=MAX_RAMP,
            unit="0..0.5",
        ),
    ] = 0.05
    max_loss_increase: Annotated[
        float | None,
        number_or_none(
            "Stop or roll back a newcomer whose loss exceeds that of the rest by more than this; none means never.",
            least=0,
            most=1,
            unit="0..1",
        ),
    ] = 0.05
    confidence_threshold: Annotated[
        float | None,
        number_or_none(
            "The default replaces answers with less confidence than this.", least=0, most=1, default="none", unit="0..1"
        ),
    ] = None
    confidence_from: Annotated[
        ConfidenceFrom,
        Setting(
            "The source of an answer's confidence: the share of models that agree, or the probability that it states."
        ),
    ] = "agreement"
    label_field: Annotated[
        str | None,
        Setting(
            "The named output that policies combine, and that labels are compared with.",
            default="label, or the only number or text",
            metavar="NAME",
        ),
    ] = None
    calibrate: Annotated[
        bool,
        Setting(
            "Learn from feedback how often answers of each confidence are right, and answer that share as their "
            "confidence."
        ),
    ] = False
    feedback_ttl_s: Annotated[
        float, Setting("For how many seconds feedback on a query is accepted.", least=0, most=MAX_FEEDBACK_TTL_S)
    ] = 600.0
    log_decisions: Annotated[
        float,
        Setting("Share of the queries that is written to the decision log, e.g. 0.1.", least=0, most=1),
    ] = 0.0
    log_inputs: Annotated[LogInputs, Setting("Whether the decision log keeps its queries' inputs, too.")] = "off"
    redact: Annotated[
        str | None,
        Setting(
            "Fields that the decision log leaves out of inputs, outputs and labels, such as name,email.",
            metavar="FIELDS|none",
            default="none",
            read=read_text_or_none,
        ),
    ] = None
    cost_weight: Annotated[
        float,
        Setting(
            "How much loss a cost of 1 is worth: models are chosen by loss + weight * cost.", least=0, most=MAX_COST
        ),
    ] = 0.0
    max_cost_per_query: Annotated[
        float | None,
        number_or_none(
            "Experimental: the most that a query may cost on average, in the unit of the links' costs: the best models "
            "within it are asked; none means no budget.",
            least=0,
            above=True,
            most=MAX_COST,
            default="none",
        ),
    ] = None
    min_quality: Annotated[
        float | None,
        number_or_none(
            "Experimental: the mean quality of answers to keep, 1 minus their mean loss, at the least cost; none means "
            "no bound.",
            least=0,
            above=True,
            most=1,
            default="none",
            unit="0..1",
        ),
    ] = None


_HALF_LIFE = number_or_none(
    "The number of further observations after which an observation counts half; none means never. "
    "Each policy has its own default.",
    least=1,
    most=MAX_OBSERVATIONS,
    whole=True,
)


class Selection(SelectionSettings, frozen=True):
    """An application's rules for selecting and learning, in the form of workers and of the registry.

    Attributes:
        policy: a policy's name, or ``module:Class``.
        loss: a loss's name, or ``module:function``.
        code: a folder with the modules that ``policy`` and ``loss`` name, if they are the user's own.
    """

    policy: str = "single"
    parameters: dict[str, Any] = {}
    loss: str = "zero_one"
    loss_parameters: dict[str, Any] = {}
    code: str | None = None
    half_life: Annotated[int | None, _HALF_LIFE] = 1000


class ApplicationSettings(SelectionSettings, frozen=True, kw_only=True):
    """The settings of an application that can also be changed while it serves.

    Attributes:
        default_output: any JSON; absent means that there is no default.
        policy, loss: a name alone means the defaults of its parameters.
        half_life: absent means the policy's own; None means never.
        code: SHA-256 of the artifact with the modules of the user's own policy or loss.
        steps: the steps of a pipeline, by name; without steps, an application asks the models that it links.
    """

    slo_ms: Annotated[
        float,
        Setting("The time within which a query is answered, in milliseconds.", least=0, above=True, most=MAX_SLO_MS),
    ] = 100.0
    waking_slo_ms: Annotated[
        float | None,
        number_or_none(
            "The time for queries that wait until a model is awake: longer than usual, or shorter to get the default "
            "at once; none means the usual time.",
            least=0,
            above=True,
            most=MAX_SLO_MS,
            default="none",
            unit="MS",
        ),
    ] = None
    default_output: Annotated[
        Any | UnsetType,
        Setting(
            "The answer if no model has answered in time, as JSON, @FILE, or - for standard input.",
            option="default",
            metavar="JSON",
            read=read_json_or_file,
        ),
    ] = UNSET
    policy: Annotated[
        str | Configured,
        Setting(
            f"Which models are asked, and how their outputs become one answer: {', '.join(POLICY_NAMES)}, the name of "
            "a package's own, or module:Class.",
            metavar="NAME",
        ),
    ] = Selection().policy
    loss: Annotated[
        str | Configured,
        Setting(
            f"How wrong an answer is, given the right one: {', '.join(LOSS_NAMES)}, the name of a package's own, or "
            "module:function.",
            metavar="NAME",
        ),
    ] = Selection().loss
    half_life: Annotated[int | UnsetType | None, _HALF_LIFE] = UNSET
    code: str | None = None
    require_key: Annotated[bool, Setting("Answer only clients that send a key, even if the server requires none.")] = (
        False
    )
    show_model: Annotated[bool, Setting("Say in each answer which model and version gave it.")] = True
    max_in_flight: MaxInFlight = None
    max_per_second: MaxPerSecond = None
    null_is_nan: Annotated[bool, Setting("Take null in inputs' tensors of floats as NaN.")] = False
    ignore_unknown_fields: Annotated[
        bool, Setting("Ignore fields of a record that its type does not have, instead of refusing it.")
    ] = False
    nan_as_text: Annotated[
        bool, Setting('Answer NaN and infinity in JSON as "NaN", "Infinity" and "-Infinity", instead of null.')
    ] = False
    max_replicas: Annotated[
        int | None,
        number_or_none(
            "The most replicas that all models of a pipeline's steps have together: the load decides which get them.",
            whole=True,
            least=1,
            most=MAX_STEPS * MAX_REPLICAS,
            default="none",
        ),
    ] = None
    # Litestar's schema does not accept a dict as a default.
    steps: Annotated[
        dict[str, Step],
        Setting("The steps of a pipeline by name: each asks an application. See docs/pipelines.md.", option=""),
    ] = msgspec.field(default_factory=dict)
    output: Annotated[
        Wiring | None,
        Setting(
            "The pipeline's answer: a value such as rank.label, or a value for each name.",
            default="the last step's output",
            option="",
        ),
    ] = None


class NewApplication(ApplicationSettings, frozen=True, forbid_unknown_fields=True):
    """An application to create. An ``input_type`` of None means the first linked model's."""

    name: str
    input_type: Annotated[str | None, Setting(INPUT_TYPE_HELP)] = None
    links: tuple[Link, ...] = ()


_Changes: Any = changes_of(ApplicationSettings)


class ApplicationChange(_Changes):  # type: ignore[misc]  # its fields are made, not written
    """The settings to change; absent settings stay. A ``default_output`` of null sets the default output null.

    A new policy or loss has only the parameters that come with it, not those of the old policy or loss.
    """


class ApplicationOptions(TypedDict, total=False):
    """The settings of an application, as keywords of ``create_application`` and ``change_application``.

    A policy or loss has only the parameters that come with it: to keep a parameter, give it again.
    """

    slo_ms: float
    waking_slo_ms: float | None
    default_output: Any
    policy: str
    policy_parameters: Mapping[str, Any] | None
    loss: str
    loss_parameters: Mapping[str, Any] | None
    half_life: int | None
    prior_weight: float
    inherit: float
    ramp: float | None
    max_loss_increase: float | None
    wait: Wait
    confidence_threshold: float | None
    confidence_from: ConfidenceFrom
    label_field: str | None
    calibrate: bool
    feedback_ttl_s: float
    log_decisions: float
    log_inputs: LogInputs
    redact: str | None
    features: Features
    cost_weight: float
    max_cost_per_query: float | None
    min_quality: float | None
    require_key: bool
    show_model: bool
    max_in_flight: int | None
    max_per_second: float | None
    null_is_nan: bool
    ignore_unknown_fields: bool
    nan_as_text: bool
    max_replicas: int | None
    steps: dict[str, Step]
    output: Wiring | None
