"""The claims of docs/regret.md: the kept results, of the defaults as they are, and a small part of them again."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.regret import ours, textbook
from benchmarks.regret.families import families
from benchmarks.regret.results import BLIND, BY_FEATURES, best_textbook, ratio, read
from benchmarks.regret.simulation import play
from benchmarks.regret.streams import ROUNDS, SIZES, STREAMS, SWAP_ROUNDS
from benchmarks.regret.table import table, table_by_features
from clipper.learning.policies.adaptive import Adaptive

RESULTS = read()
POLICIES = [family.policy for family in families()]
PAGE = (Path(__file__).parents[3] / "docs" / "regret.md").read_text()


@pytest.mark.parametrize("policy", POLICIES)
def test_the_defaults_are_near_the_best_single_setting(policy: str) -> None:
    assert ratio(RESULTS, policy) <= 1.1


def test_adaptive_beats_the_best_textbook_policy_at_its_best_setting() -> None:
    assert RESULTS["adaptive"][0].sum <= 0.9 * best_textbook(RESULTS).sum


def test_the_results_are_of_the_defaults_as_they_are() -> None:
    assert {family.policy: RESULTS[family.policy][0].setting for family in families()} == {
        family.policy: family.ours.settings[0] for family in families()
    }


def test_the_page_shows_the_results() -> None:
    assert table(RESULTS) in PAGE
    assert table_by_features(RESULTS) in PAGE


def test_who_sees_features_loses_a_third_of_what_others_do() -> None:
    for policy in BY_FEATURES:
        assert RESULTS[policy][0].sum < min(each.sum for each in RESULTS[BLIND]) / 3


def test_stacking_is_no_worse_than_equal_votes_or_weights_by_accuracy() -> None:
    equal = next(each for each in RESULTS["ensemble"] if each.name == "equal votes")
    log_odds = next(each for each in RESULTS["ensemble"] if each.name == "log odds")
    assert RESULTS["stacking"][0].sum < 0.2 * min(equal.sum, log_odds.sum)


@pytest.mark.long
def test_a_small_part_of_it_again() -> None:
    """Five models, three seeds: adaptive beside the textbook's best, with the setting that is best in all."""
    mine = play(ours.Adaptive, [{"exploration": Adaptive().exploration}], 5, 3).sum(axis=1).mean()
    best = best_textbook(RESULTS)
    theirs = play(textbook.Thompson, [best.setting], 5, 3).sum(axis=1).mean()
    assert "prior" in best.setting  # it is one of Thompson's
    assert mine <= 0.9 * theirs


def test_streams_are_what_they_are_said_to_be() -> None:
    for name, stream in STREAMS.items():
        for models in SIZES:
            means = stream(models, 4, np.random.default_rng(0))
            assert means.shape[1:] == (4, models)
            assert 0.049 < means.min() <= means.max() < 0.501, name
    swapped = STREAMS["swapped"](5, 4, np.random.default_rng(0))
    assert (swapped[0].argmin(axis=1) == swapped[-1].argmax(axis=1)).all()
    swapping = STREAMS["swapping"](5, 4, np.random.default_rng(0))
    changes = (swapping[1:] != swapping[:-1]).any(axis=(1, 2))
    assert changes.sum() == ROUNDS // SWAP_ROUNDS - 1
    close = np.sort(STREAMS["close"](5, 4, np.random.default_rng(0))[0], axis=1)
    assert close[:, :2] == pytest.approx(np.array([[0.05, 0.06]] * 4))
