"""Tables 1 and 2: the data sets, and the models that are fitted to them."""

from dataclasses import dataclass

from benchmarks.harness.pages import table
from benchmarks.paper import ensembles, networks
from benchmarks.paper.bench import Bench
from benchmarks.paper.data import Labelled, concatenated, fashion_mnist, vowel
from benchmarks.paper.figure import Figure, Numbers, Verdict
from benchmarks.paper.training import PLAIN, PLAIN_FITTED_TO, SMALL_FORESTS


@dataclass(frozen=True, slots=True)
class Used:
    """Models, in the place of the paper's.

    Attributes:
        figure: the number of the figure, in the paper.
        fitted_to: rows.
    """

    figure: str
    models: str
    framework: str
    fitted_to: str


USED = (
    Used("3, 4, 5, 11", ", ".join(PLAIN), "scikit-learn", f"{PLAIN_FITTED_TO:,}"),
    Used("3", "spark-linear", "Spark MLlib", f"{PLAIN_FITTED_TO:,}"),
    Used(
        "7, 11",
        ", ".join(ensembles.MODELS),
        ", ".join(model.framework for model in ensembles.MODELS.values()),
        "20,000",
    ),
    Used(
        "8",
        f"{len(networks.NETWORKS)} networks",
        "scikit-learn",
        ", ".join(f"{images:,}" for _, images in networks.NETWORKS.values()),
    ),
    Used("9", f"{SMALL_FORESTS} forests of 10 trees", "scikit-learn", "1,000 each"),
    Used("10", "15 linear discriminants, one for each speaker, and one for all", "scikit-learn", "33 each, 495"),
    Used("section 4.2", "forest, logistic, discriminant, tree", "scikit-learn", "20,000"),
)


def measure(bench: Bench) -> Numbers:
    """Nothing is served."""
    pictures, speech = fashion_mnist(), vowel()
    parts = {
        "Fashion-MNIST": ("pictures of clothes", (pictures.train, pictures.held_out)),
        "Vowel": ("recorded vowels", (concatenated(speech.train), concatenated(speech.held_out))),
    }
    return {
        "sets": {name: {"what": what, **_size(train, held_out)} for name, (what, (train, held_out)) in parts.items()}
    }


def _size(train: Labelled, held_out: Labelled) -> dict[str, int]:
    return {
        "train": len(train),
        "held_out": len(held_out),
        "features": train.inputs.shape[1],
        "labels": len(set(train.labels.tolist())),
    }


def judge(numbers: Numbers) -> Verdict:
    """The tables state what is used, and claim nothing."""
    return Verdict()


def describe(numbers: Numbers) -> str:
    sets = [
        [name, each["what"], *(f"{each[key]:,}" for key in ("train", "held_out", "features", "labels"))]
        for name, each in numbers["sets"].items()
    ]
    used = [[each.figure, each.models, each.framework, each.fitted_to] for each in USED]
    return "\n".join(
        [
            table(["data set", "of", "rows to fit to", "rows to ask about", "features", "labels"], sets),
            table(["figure", "models", "framework", "fitted to rows"], used),
        ]
    )


FIGURE = Figure("datasets", "tables 1 and 2: data sets and models", measure, judge, describe)
