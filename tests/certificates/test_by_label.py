"""Gains by group or type of agent."""

import dataclasses

import jax
import numpy as np
import pytest

import crowdnash as cn

KEY = jax.random.key(0)
GAME = cn.games.RockPaperScissors.sample(KEY, num_agents=6, horizon=2)
POLICY = cn.TabularPolicy.uniform(GAME)


def test_exact_gains_by_hand():
    e = cn.exploitability(GAME, POLICY, key=KEY)
    types = ["b", "a", "a", "b", "a", "c"]
    rows = e.by(types)
    assert [(row.label, row.num_agents) for row in rows] == [("a", 3), ("b", 2), ("c", 1)]
    for row, members in zip(rows, ([1, 2, 4], [0, 3], [5]), strict=True):
        gains = e.lower[members]
        assert row.maximum == (gains.max(), gains.max())
        np.testing.assert_allclose(row.mean, gains.mean())
        assert row.value == pytest.approx(e.value[members].mean())


def test_one_label_is_as_wide_as_the_certificate_or_wider():
    """All agents under one label: at least what the certificate's own intervals allow for."""
    e = cn.exploitability(GAME, POLICY, key=KEY, method="paths", num_trajectories=16, agents=[5, 0])
    (row,) = e.by(np.arange(6) // 6)
    assert (row.label, row.num_agents) == (0, 2)
    for one, other in ((row.maximum, e.maximum), (row.mean, e.mean)):
        assert one.lower <= other.lower + 1e-6
        assert one.upper >= other.upper - 1e-6
    less = dataclasses.replace(e, standard_error=e.standard_error / 50)
    assert less.by(np.zeros(6))[0].maximum.lower > max(row.maximum.lower, 0)
    assert [row.label for row in e.by(np.arange(6))] == [0, 5]  # labels are the game's agents'


@pytest.mark.parametrize("labels", [np.zeros(5), np.zeros((6, 2))])
def test_labels_of_other_agents(labels, no_type_checks):
    e = cn.exploitability(GAME, POLICY, key=KEY)
    with pytest.raises(ValueError, match="labels must have one entry an agent of the game"):
        e.by(labels)
