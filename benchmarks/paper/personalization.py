"""Figure 10: a user's own feedback, one at a time, leads from the model of all speakers to the user's own."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from benchmarks.harness.pages import table
from benchmarks.paper.bench import Bench, encode_inputs
from benchmarks.paper.client import Connection, for_each
from benchmarks.paper.data import Labelled, concatenated, vowel
from benchmarks.paper.figure import Claim, Figure, Numbers, Verdict
from benchmarks.paper.training import trained

POOLED = "pooled"
FEEDBACKS = 8
TRIALS = 20
SLO_MS = 2_000
CONNECTIONS = 8
APPLICATION = "personal"
# Of a speaker's 33 held-out frames: one of each vowel is the crowd's feedback, the others are the user's.
CROWD_FRAMES = 11


@dataclass(frozen=True, slots=True)
class User:
    """One trial: a speaker whom nobody knows yet, with feedback on some frames, and others to be asked about.

    Attributes:
        context: its name.
        feedback: rows of the speaker's held-out frames, in the order in which feedback on them comes.
        asked: rows of the other frames.
    """

    context: str
    speaker: int
    feedback: tuple[int, ...]
    asked: tuple[int, ...]


def measure(bench: Bench) -> Numbers:
    """300 users: after each of 0 to 8 feedbacks, ask for 14 frames of theirs."""
    data = vowel()
    models = _deploy(bench, data.train)
    bench.create(APPLICATION, models, slo_ms=SLO_MS, policy="exp4")
    _learn_from_crowd(bench, data.held_out)
    users = make_users(len(data.train), [len(frames) for frames in data.held_out], np.random.default_rng(0))
    run = Run(data.held_out)
    for_each(bench.address, CONNECTIONS, users, run.serve)
    after = np.array([run.errors[user.context] for user in users])
    own = [run.error_alone[user.context, f"speaker-{user.speaker}"] for user in users]
    pooled = [run.error_alone[user.context, POOLED] for user in users]
    return {
        "users": len(users),
        "frames_asked": len(users[0].asked),
        "error_after": [float(each) for each in after.mean(axis=0)],
        "half_interval": [round(float(each), 4) for each in 1.96 * after.std(axis=0, ddof=1) / len(users) ** 0.5],
        "own_error": float(np.mean(own)),
        "pooled_error": float(np.mean(pooled)),
    }


def _deploy(bench: Bench, train: Sequence[Labelled]) -> list[str]:
    """One model a speaker and one of all, of the same kind; each also as an application that is only that model."""
    parts = {POOLED: concatenated(train)} | {f"speaker-{number}": part for number, part in enumerate(train)}
    bench.deploy({name: trained(_classifier(), part) for name, part in parts.items()})
    for name in parts:
        bench.create(f"only-{name}", [name], slo_ms=SLO_MS)
    return list(parts)


def _classifier() -> Any:
    # 33 frames for 9 features: covariances need shrinking.
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)


def _learn_from_crowd(bench: Bench, held_out: Sequence[Labelled]) -> None:
    """Feedback without a context is the application's own, which a new user starts from."""
    frames = [
        b'{"input":%b,"label":%d}' % (text, label)
        for part in held_out
        for text, label in zip(encode_inputs(part.inputs[:CROWD_FRAMES]), part.labels[:CROWD_FRAMES].tolist())
    ]

    async def observe(connection: Connection, body: bytes) -> None:
        await connection.post(f"/{APPLICATION}/observe", body)

    for_each(bench.address, CONNECTIONS, frames, observe)


def make_users(speakers: int, frames: Sequence[int], random: np.random.Generator) -> list[User]:
    """``TRIALS`` users a speaker, with the frames beyond the crowd's in random order."""
    users = []
    for speaker in range(speakers):
        for trial in range(TRIALS):
            rows = (CROWD_FRAMES + random.permutation(frames[speaker] - CROWD_FRAMES)).tolist()
            context = f"speaker-{speaker}-trial-{trial}"
            users.append(User(context, speaker, tuple(rows[:FEEDBACKS]), tuple(rows[FEEDBACKS:])))
    return users


class Run:
    """What was answered.

    Attributes:
        errors: by user, the share of wrong answers after 0, 1, ... feedbacks.
        error_alone: by user and model, the same of a model by itself.
    """

    def __init__(self, held_out: Sequence[Labelled]) -> None:
        self._labels = [part.labels.tolist() for part in held_out]
        self._inputs = [encode_inputs(part.inputs) for part in held_out]
        self.errors: dict[str, list[float]] = {}
        self.error_alone: dict[tuple[str, str], float] = {}

    async def serve(self, connection: Connection, user: User) -> None:
        for model in (POOLED, f"speaker-{user.speaker}"):
            self.error_alone[user.context, model] = await self._ask(connection, f"only-{model}", user)
        errors = self.errors[user.context] = [await self._ask(connection, APPLICATION, user)]
        for row in user.feedback:
            await self._observe(connection, user, row)
            errors.append(await self._ask(connection, APPLICATION, user))

    async def _ask(self, connection: Connection, application: str, user: User) -> float:
        inputs = b",".join(self._inputs[user.speaker][row] for row in user.asked)
        body = b'{"input_batch":[%b],"context":%b}' % (inputs, json.dumps(user.context).encode())
        answer = await connection.post(f"/{application}/predict", body)
        outputs = [part["output"] for part in answer["batch_predictions"]]
        return error(outputs, [self._labels[user.speaker][row] for row in user.asked])

    async def _observe(self, connection: Connection, user: User, row: int) -> None:
        text, label = self._inputs[user.speaker][row], self._labels[user.speaker][row]
        body = b'{"input":%b,"context":%b,"label":%d}' % (text, json.dumps(user.context).encode(), label)
        await connection.post(f"/{APPLICATION}/observe", body)


def error(outputs: Sequence[int], labels: Sequence[int]) -> float:
    """The share of ``outputs`` that are not the label beside them."""
    return sum(output != label for output, label in zip(outputs, labels)) / len(labels)


def judge(numbers: Numbers) -> Verdict:
    after, own, pooled = numbers["error_after"], numbers["own_error"], numbers["pooled_error"]
    half = numbers["half_interval"]
    here = f"{after[0]:.3f} ± {half[0]:.3f}, {after[1]:.3f} ± {half[1]:.3f}, {after[8]:.3f} ± {half[8]:.3f}"
    # Never noticeably back up.
    falls = all(later <= earlier + 0.01 for earlier, later in itertools.pairwise(after))
    return Verdict(
        (
            Claim(
                "each piece of a user's feedback lowers the error: 0.362 without, 0.312 after 1, 0.300 after 8",
                here,
                falls and after[-1] < after[0],
                "the error rose in between",
            ),
            Claim(
                "without feedback the error is that of the one model for all: 0.362 and 0.362",
                f"{after[0]:.3f} and {pooled:.3f}",
                abs(after[0] - pooled) <= half[0],
                "the paper starts from the one model for all, Clipper from the weights that the crowd's feedback gives "
                "to all models, and their vote errs less",
            ),
            Claim(
                "one piece of feedback is enough to beat the model of the user's own group: 0.312 and 0.321",
                f"{after[1]:.3f} and {own:.3f}",
                after[1] < own,
                "15 speakers differ far more than 8 dialects: a model of the user's own voice hardly errs, and has to "
                "be found among 16",
            ),
            Claim(
                "after 8 pieces the error is at most that of the user's own group's model: 0.300 and 0.321",
                f"{after[8]:.3f} ± {half[8]:.3f} and {own:.3f}",
                after[8] - half[8] <= own,
                "some of the weight is still on the models of other speakers",
            ),
        )
    )


def describe(numbers: Numbers) -> str:
    columns = ["after " + str(count) for count in range(len(numbers["error_after"]))]
    errors = [f"{each:.3f}" for each in numbers["error_after"]]
    head = ["one model for all", "the user's own group's", "Clipper, no feedback", *columns[1:]]
    return table(head, [[f"{numbers['pooled_error']:.3f}", f"{numbers['own_error']:.3f}", *errors]])


FIGURE = Figure("personalization", "figure 10: a context for each user", measure, judge, describe)
