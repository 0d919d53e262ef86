"""What is served."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Task:
    """A model, and the objective that Clipper serves it under; no other server takes one.

    Attributes:
        rows_by: the script of ``apps`` that fits the model and writes what it is asked.
        made_in: the requirements of the environment in which Clipper's model is made; None for Clipper's own.
        reads: the files that the script reads.
        suffix: of the model's file.
    """

    name: str
    what: str
    slo_ms: int
    rows_by: str = "model.py"
    made_in: str | None = None
    reads: tuple[Path, ...] = ()
    suffix: str = "joblib"


TASKS = {
    task.name: task
    for task in (
        Task("svm", "scikit-learn's LinearSVC on 784 floats", 20),
        Task("sum", "the sum of 4 floats", 20),
        Task("slept", "a model that sleeps 40 ms a batch and 50 µs a row", 100),
        Task(
            "table", "a ColumnTransformer and logistic regression on 30 named columns", 100, "table_model.py", "tables"
        ),
        Task("chain", "three functions of 4 floats, each of which needs the output of the one before", 100),
        Task("fanout", "two functions of 4 floats side by side, and one that needs both outputs", 100),
        Task("trees", "LightGBM with categories on 30 named columns", 100, "table_model.py", "tables"),
    )
}
LISTS, TABLES, PIPELINES = ("svm", "sum", "slept"), ("table", "trees"), ("chain", "fanout")
