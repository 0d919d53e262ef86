"""What is served."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """A model, and the objective that Clipper serves it under; no other server takes one.

    Attributes:
        rows_by: the script of ``apps`` that fits the model and writes what it is asked.
    """

    name: str
    what: str
    slo_ms: int
    rows_by: str = "model.py"


TASKS = {
    task.name: task
    for task in (
        Task("svm", "scikit-learn's LinearSVC on 784 floats", 20),
        Task("sum", "the sum of 4 floats", 20),
        Task("slept", "a model that sleeps 40 ms a batch and 50 µs a row", 100),
        Task("table", "a ColumnTransformer and logistic regression on 30 named columns", 100, "table_model.py"),
        Task("trees", "LightGBM with categories on 30 named columns", 100, "table_model.py"),
    )
}
LISTS, TABLES = ("svm", "sum", "slept"), ("table", "trees")
