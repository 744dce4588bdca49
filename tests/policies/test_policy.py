"""Tabular policies: constructors, what they refuse, and files that survive accidents."""

import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crowdnash as cn
from small_games import Drift, random_policy

TABLE = np.random.default_rng(0).dirichlet(np.ones(2), (3, 5, 4))  # [G=3,H=5,S=4,A=2]


def test_symmetric():
    policy = cn.TabularPolicy.symmetric(TABLE[0], num_agents=7)
    assert policy.probs.shape == (1, 5, 4, 2)
    assert policy.probs.dtype == jnp.float32
    assert policy.groups.dtype == jnp.int32
    np.testing.assert_array_equal(policy.groups, [0] * 7)
    assert (policy.num_groups, policy.num_agents) == (1, 7)


def test_grouped_and_independent():
    policy = cn.TabularPolicy.grouped(TABLE, [2, 0, 2, 1])
    np.testing.assert_allclose(policy.probs, TABLE, rtol=1e-6)
    np.testing.assert_array_equal(policy.groups, [2, 0, 2, 1])
    own = cn.TabularPolicy.independent(TABLE)
    np.testing.assert_array_equal(own.groups, [0, 1, 2])
    for agent in range(4):
        found = policy.probabilities(jnp.asarray(3), jnp.asarray(agent), jnp.asarray(1))
        np.testing.assert_allclose(found, TABLE[[2, 0, 2, 1][agent], 1, 3], rtol=1e-6)


def test_uniform():
    policy = cn.TabularPolicy.uniform(cn.games.RockPaperScissors.sample(jax.random.key(0)))
    assert policy.probs.shape == (1, 10, 3, 3)
    np.testing.assert_allclose(policy.probs, 1 / 3, rtol=1e-6)
    assert policy.num_agents == 2000


def changed(index: tuple, value: float) -> np.ndarray:
    table = TABLE.copy()
    table[index] = value
    return table


@pytest.mark.parametrize(
    ("probs", "groups", "text"),
    [
        (TABLE[0], [0, 0], "probs must have shape [G,H,S,A] with no empty axis, not (5, 4, 2)"),
        (TABLE[:, :0], [0, 0], "probs must have shape [G,H,S,A] with no empty axis"),
        (TABLE * 1.001, [0, 1, 2], "(within 1e-05): at [group, step, state] = [0, 0, 0]"),
        (changed((1, 2, 3, 0), np.nan), [0, 1], "at [group, step, state] = [1, 2, 3]"),
        (changed((2, 4, 0), [-0.1, 1.1]), [0, 1], "at [group, step, state] = [2, 4, 0]"),
        (changed((0, 1, 1, 1), np.inf), [0, 1], "at [group, step, state] = [0, 1, 1]"),
        (TABLE, [0, 3], "groups must lie in 0..2 (probs has G groups): 3"),
        (TABLE, [0, -1], "groups must lie in 0..2 (probs has G groups): -1"),
        (TABLE, [0.0, 1.0], "groups must be integers, not float64"),
        (TABLE, [], "groups must have shape [N], N >= 1, not (0,)"),
        (TABLE, [[0, 1]], "groups must have shape [N], N >= 1, not (1, 2)"),
    ],
)  # fmt: skip
def test_bad_tables(probs, groups, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        cn.TabularPolicy.grouped(probs, groups)


def test_bad_constructor_arguments():
    with pytest.raises(
        ValueError, match=re.escape("probs must have shape [H,S,A], not (3, 5, 4, 2)")
    ):
        cn.TabularPolicy.symmetric(TABLE, num_agents=3)
    with pytest.raises(ValueError, match="num_agents must be at least 1, not 0"):
        cn.TabularPolicy.symmetric(TABLE[0], num_agents=0)
    with pytest.raises(ValueError, match=r"probs must have shape \[G,H,S,A\]"):
        cn.TabularPolicy.independent(TABLE[0])


def test_rounding_of_float32_is_accepted():
    third = np.full((1, 2, 2, 3), 1 / 3, np.float32)
    cn.TabularPolicy.grouped(third * np.float32(1 + 5e-6), [0])
    with pytest.raises(ValueError, match="sum to 1"):
        cn.TabularPolicy.grouped(third * np.float32(1 + 2e-5), [0])


@pytest.mark.parametrize(
    ("axis", "sizes"),
    [("N", (3, 4, 3, 2)), ("H", (4, 5, 3, 2)), ("S", (4, 4, 2, 2)), ("A", (4, 4, 3, 3))],
)
def test_a_policy_of_another_game(axis, sizes):
    n, h, s, a = sizes
    policy = cn.TabularPolicy.symmetric(np.full((h, s, a), 1 / a), n)
    want = dict(zip("NHSA", (4, 4, 3, 2), strict=True))[axis]
    has = dict(zip("NHSA", sizes, strict=True))[axis]
    text = f"policy must fit the game: the game has {axis}={want}, the policy {axis}={has}"
    with pytest.raises(ValueError, match=text):
        policy.check_fits(Drift())


# --- files ---


@pytest.fixture
def policy():
    return random_policy(1, [0, 2, 1, 2], horizon=3, num_states=2, num_actions=3)


def test_round_trip(policy, tmp_path):
    path = tmp_path / "p.npz"
    policy.save(path)
    for source in (path, str(path)):
        loaded = cn.TabularPolicy.load(source)
        np.testing.assert_array_equal(loaded.probs, policy.probs)
        np.testing.assert_array_equal(loaded.groups, policy.groups)
    assert os.listdir(tmp_path) == ["p.npz"]


def test_the_name_is_taken_literally(policy, tmp_path):
    policy.save(tmp_path / "policy")
    assert os.listdir(tmp_path) == ["policy"]
    cn.TabularPolicy.load(tmp_path / "policy")


def test_save_replaces(policy, tmp_path):
    other = cn.TabularPolicy.symmetric(TABLE[0], 2)
    other.save(tmp_path / "p.npz")
    policy.save(tmp_path / "p.npz")
    assert cn.TabularPolicy.load(tmp_path / "p.npz").num_agents == 4


@pytest.mark.parametrize("call", ["numpy.savez", "os.replace", "os.fsync"])
def test_a_failed_save_leaves_the_old_file(policy, tmp_path, monkeypatch, call):
    path = tmp_path / "p.npz"
    policy.save(path)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(call, full)
        with pytest.raises(OSError, match="No space left"):
            cn.TabularPolicy.symmetric(TABLE[0], 2).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["p.npz"]


@pytest.mark.parametrize("keep", [0, 1, 10, 100, 400, -1, -30])
def test_truncated_files(policy, tmp_path, keep):
    path = tmp_path / "p.npz"
    policy.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        cn.TabularPolicy.load(path)


def test_flipped_bytes(policy, tmp_path):
    """No single damaged byte loads as another policy, or fails without naming the file."""
    path = tmp_path / "p.npz"
    policy.save(path)
    good = path.read_bytes()
    for k in range(0, len(good), 7):
        path.write_bytes(good[:k] + bytes([good[k] ^ 0x55]) + good[k + 1 :])
        try:
            loaded = cn.TabularPolicy.load(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:  # a byte that carries no data, a date for example
            np.testing.assert_array_equal(loaded.probs, policy.probs)
            np.testing.assert_array_equal(loaded.groups, policy.groups)


def write_text(path):
    path.write_text("a letter\n")


def write_array(path):
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))


def write_foreign(path):
    np.savez(path, weights=np.zeros(3))


def write_other_format(path):
    np.savez(path, format=np.asarray("another-1"), probs=TABLE, groups=np.zeros(2, int))


def write_incomplete(path):
    np.savez(path, format=np.asarray("crowdnash-tabular-policy-1"), probs=TABLE)


def write_bad_table(path):
    name = np.asarray("crowdnash-tabular-policy-1")
    np.savez(path, format=name, probs=2 * TABLE, groups=np.zeros(2, int))


def write_objects(path):
    np.savez(path, format=np.asarray("crowdnash-tabular-policy-1"), probs=np.asarray([{}]))


@pytest.mark.parametrize(
    "write",
    [
        write_text,
        write_array,
        write_foreign,
        write_other_format,
        write_incomplete,
        write_bad_table,
        write_objects,
    ],
)
def test_foreign_files(write, tmp_path):
    path = tmp_path / "p.npz"
    write(path)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        cn.TabularPolicy.load(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        cn.TabularPolicy.load(tmp_path / "none.npz")
