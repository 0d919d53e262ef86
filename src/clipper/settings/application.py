"""What an application is: how it selects among its models and learns, and who may ask it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import UNSET, Struct, UnsetType

from clipper.settings.fields import Setting, changes_of
from clipper.settings.texts import read_count_or_none, read_features, read_json, read_number_or_none
from clipper.types import MAX_FEATURES

Wait = Literal["all", "decided", "expected"]
ConfidenceFrom = Literal["agreement", "probabilities"]
Features = int | Literal["input"] | None
Cost = float | Literal["auto"]

MAX_SLO_MS = 600_000.0
# Feedback on a query that was longer ago would be on a model that is no longer there. Ids of feedback are kept as long.
MAX_FEEDBACK_TTL_S = 7 * 24 * 3600.0
# More feedback than comes in years; who wants more wants no half-life.
MAX_OBSERVATIONS = 10**9
# With more, it would be the rest that is new.
MAX_RAMP = 0.5
# Of a cost and of its weight: their product, and sums of it, are still numbers that a state can hold.
MAX_COST = 1e6
# More than any worker has at once, or answers: who wants more wants no limit.
MAX_IN_FLIGHT = 1_000_000
MAX_PER_SECOND = 1_000_000
# One in a quarter of an hour: who wants less wants none.
MIN_PER_SECOND = 0.001


# Of an application, or of a key.
MaxInFlight = Annotated[
    int | None,
    Setting(
        "How many queries may be in flight at once; or none, which is no limit.",
        least=1,
        most=MAX_IN_FLIGHT,
        metavar="N|none",
        default="none",
        read=read_count_or_none,
    ),
]
MaxPerSecond = Annotated[
    float | None,
    Setting(
        "How many queries a second are let in; or none, which is no limit.",
        least=MIN_PER_SECOND,
        most=MAX_PER_SECOND,
        metavar="N|none",
        default="none",
        read=read_number_or_none,
    ),
]


class Link(Struct, frozen=True):
    """A model that an application may ask: its current version, or the pinned one.

    A ``shadow`` model is asked each query and scored from feedback, but never answers. ``cost`` is that of asking it
    once, in a unit of the user's; ``auto`` is measured, in milliseconds of a replica; None if nobody has said.
    """

    model: str
    version: str | None = None
    shadow: bool = False
    cost: Cost | None = None


def link_names(links: Sequence[Link]) -> tuple[str, ...]:
    """What policies, parameters and metrics call each: by its model, or ``MODEL:VERSION`` if that version is one of
    several that are linked of the model."""
    links_of = Counter(link.model for link in links)
    return tuple(
        link.model if link.version is None or links_of[link.model] == 1 else f"{link.model}:{link.version}"
        for link in links
    )


class Configured(Struct, frozen=True, forbid_unknown_fields=True):
    """A policy or a loss: its name, and the parameters that are not to have their defaults.

    The user's own is ``module:attribute``.
    """

    name: str
    # The framework's schema of it takes no dict as a default.
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)


class SelectionSettings(Struct, frozen=True, kw_only=True):
    """How an application selects among its models and learns from feedback, in so far as all ways do it alike.

    docs/policies.md explains each.
    """

    wait: Annotated[
        Wait, Setting("For which of several models an answer waits: all, those expected in time, or until decided.")
    ] = "expected"
    features: Annotated[
        Features,
        Setting(
            "How many numbers each query brings for its policy; input if its input is them; or none.",
            least=1,
            most=MAX_FEATURES,
            metavar="N|input|none",
            default="none",
            read=read_features,
        ),
    ] = None
    prior_weight: Annotated[
        float,
        Setting("For how many observations what all taught counts in a new context.", least=0, most=MAX_OBSERVATIONS),
    ] = 10.0
    inherit: Annotated[
        float,
        Setting("How much of what was learned of a version counts for the next one, from 0 to 1.", least=0, most=1),
    ] = 0.02
    ramp: Annotated[
        float | None,
        Setting(
            "The share of queries that a new link or version gets until feedback has told enough; or none, no ramp.",
            least=0,
            above=True,
            most=MAX_RAMP,
            metavar="0..0.5|none",
            read=read_number_or_none,
        ),
    ] = 0.05
    max_loss_increase: Annotated[
        float | None,
        Setting(
            "A new link or version that loses so much more than the rest is stopped, or rolled back; or none, never.",
            least=0,
            most=1,
            metavar="0..1|none",
            read=read_number_or_none,
        ),
    ] = 0.05
    confidence_threshold: Annotated[
        float | None,
        Setting(
            "Less sure answers than this are replaced by the default; or none.",
            least=0,
            most=1,
            metavar="0..1|none",
            default="none",
            read=read_number_or_none,
        ),
    ] = None
    confidence_from: Annotated[
        ConfidenceFrom,
        Setting("What an answer's confidence is: how many models agree, or the probabilities that it states itself."),
    ] = "agreement"
    calibrate: Annotated[bool, Setting("Make confidence how often such answers are right, by feedback.")] = False
    feedback_ttl_s: Annotated[
        float, Setting("For how many seconds feedback on a query may come.", least=0, most=MAX_FEEDBACK_TTL_S)
    ] = 600.0
    log_decisions: Annotated[
        float,
        Setting("The share of queries that is written to the decision log, e.g. 0.1; 0 is none.", least=0, most=1),
    ] = 0.0
    cost_weight: Annotated[
        float,
        Setting(
            "How much loss a cost of 1 is worth: models are chosen by loss + weight * cost.", least=0, most=MAX_COST
        ),
    ] = 0.0


_HALF_LIFE = Setting(
    "After how many observations one counts half, or none; else as suits the policy.",
    least=1,
    most=MAX_OBSERVATIONS,
    metavar="N|none",
    read=read_count_or_none,
)


class Selection(SelectionSettings, frozen=True):
    """How an application selects and learns, as workers and the registry have it.

    Attributes:
        policy: a policy's name, or ``module:Class``.
        loss: a loss's name, or ``module:function``.
        code: a folder with the modules that ``policy`` and ``loss`` name, if they are the user's own.
        half_life: after how many observations one counts half; None is never.
    """

    policy: str = "single"
    parameters: dict[str, Any] = {}
    loss: str = "zero_one"
    loss_parameters: dict[str, Any] = {}
    code: str | None = None
    half_life: Annotated[int | None, _HALF_LIFE] = 1000


class ApplicationSettings(SelectionSettings, frozen=True, kw_only=True):
    """All that may be set of an application, and set anew while it serves.

    Attributes:
        default_output: any JSON; absent means that there is none.
        policy, loss: a name alone is one with its defaults.
        half_life: if absent, the policy's own; None is never.
        code: SHA-256 of the artifact with the modules of a policy or loss of the user's own.
        max_in_flight, max_per_second: of its queries, over all workers; None is no bound.
    """

    slo_ms: Annotated[
        float, Setting("Within how many milliseconds a query is answered.", least=0, above=True, most=MAX_SLO_MS)
    ] = 100.0
    default_output: Annotated[
        Any | UnsetType,
        Setting(
            "JSON that is answered when no model has answered in time.",
            option="default",
            metavar="JSON",
            read=read_json,
        ),
    ] = UNSET
    policy: Annotated[
        str | Configured,
        Setting("Which models are asked and what is made of their answers: a name, or module:Class.", metavar="NAME"),
    ] = Selection().policy
    loss: Annotated[
        str | Configured,
        Setting("How wrong an answer is, given the right one: a name, or module:function.", metavar="NAME"),
    ] = Selection().loss
    half_life: Annotated[int | UnsetType | None, _HALF_LIFE] = UNSET
    code: str | None = None
    require_key: Annotated[bool, Setting("Answer only who shows a key, also where the server asks for none.")] = False
    max_in_flight: MaxInFlight = None
    max_per_second: MaxPerSecond = None


class NewApplication(ApplicationSettings, frozen=True, forbid_unknown_fields=True):
    """An application to create. ``input_type`` None means the first linked model's."""

    name: str
    input_type: Annotated[
        str | None, Setting("What one input is, e.g. float64[784] or string, if the model does not say.")
    ] = None
    links: tuple[Link, ...] = ()


_Changes: Any = changes_of(ApplicationSettings)


class ApplicationChange(_Changes):  # type: ignore[misc]  # its fields are made, not written
    """What is to be other than it was; what is absent stays. ``default_output`` null is a default of null, not none.

    A new policy or loss has the parameters that come with it, and none of the old one's.
    """


class ApplicationOptions(TypedDict, total=False):
    """The settings of an application, as keywords of ``create_application`` and ``change_application``.

    Parameters that are not given have their defaults, those of a policy or loss that was there before, too.
    """

    slo_ms: float
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
    calibrate: bool
    feedback_ttl_s: float
    log_decisions: float
    features: Features
    cost_weight: float
    require_key: bool
    max_in_flight: int | None
    max_per_second: float | None
