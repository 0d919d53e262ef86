"""Records of each kind, with fields that are not the defaults."""

from clipper.settings.application import Link, Selection
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.registry.records import ApplicationRecord, TokenRecord, VersionRecord

SPEC = VersionSpec("ab" * 32, "file", "model.joblib", input_type="float64[4]", memory_bytes=1 << 30)
SELECTION = Selection("exp3", {"eta": 0.5}, "absolute", {"range": 10}, half_life=None, prior_weight=5.0)
LINKS = (Link("svm"), Link("forest", "2", shadow=True))
APPLICATION = ApplicationRecord("digits", "float64[4]", 20.0, "null", SELECTION, LINKS, "digits#1", code="cd" * 32)

TOKEN = TokenRecord("ci", "read", "ab" * 32, 1e9)


def version_of(model: str, version: str, **fields: object) -> VersionRecord:
    return VersionRecord(model, version, SPEC, Batching("fixed", 8, 1.5), False, 2, 1e9, **fields)  # type: ignore[arg-type]
