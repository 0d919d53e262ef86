"""The answer of several models whose outputs have names, if it is no model's own: such as a mean."""

from collections.abc import Mapping, Sequence

from clipper.learning.policies.combine import mean
from clipper.values.outputs.output import RecordOutput, make_record


def combined_record(
    models: Sequence[str],
    shares: Sequence[float],
    outputs: Mapping[str, RecordOutput],
    combined: bytes,
    judged: Mapping[str, bytes],
) -> RecordOutput:
    """Return an output with names: the value that the policy combined is the combined one, and each other value is the
    weighted mean of those models that have the same names, or, where it is no number, what most of the weight says.

    Args:
        models: all that were asked, each with its share.
        outputs: by model, at least one.
        combined: the policy's.
        judged: by model, the texts that the policy combined.
    """
    first = max(outputs, key=lambda model: shares[models.index(model)])
    names = outputs[first].of
    alike = {model: output for model, output in outputs.items() if output.of.names == names.names}
    present = [(model, share) for model, share in zip(models, shares) if model in alike]
    parts = []
    for place, part in enumerate(outputs[first].parts):
        texts = {model: bytes(output.parts[place]) for model, output in alike.items()}
        if bytes(part) == judged.get(first):
            parts.append(combined)
        else:
            parts.append(mean([model for model, _ in present], [share for _, share in present], texts).output)
    return make_record(names, tuple(parts))
