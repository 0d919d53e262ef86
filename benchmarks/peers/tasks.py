"""What is served."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """A model, and the objective that Clipper serves it under; no other server takes one."""

    name: str
    what: str
    slo_ms: int


TASKS = {
    task.name: task
    for task in (
        Task("svm", "scikit-learn's LinearSVC on 784 floats", 20),
        Task("sum", "the sum of 4 floats", 20),
        Task("slept", "a model that sleeps 40 ms a batch and 50 µs a row", 100),
    )
}
