"""Makes the answer of several models whose outputs have names, if it is no model's own output, such as a mean."""

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
    """Return an output with names, in which ``combined`` replaces the value that the policy judged.

    Each other value is the weighted mean of the models with the same names; or, if it is no number, the value with the
    most weight.

    Args:
        models: all asked models, each with its share.
        outputs: the outputs by model, at least one.
        combined: the value that the policy combined.
        judged: the texts that the policy combined, by model.
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
