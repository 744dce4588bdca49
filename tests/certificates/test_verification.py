"""Certificate files that others can check: `crowdnash verify` and what it refuses."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import crowdnash as cn
from crowdnash import cli
from crowdnash.certificates.origin import Origin, key_from_text, key_text
from crowdnash.certificates.result import Exploitability
from crowdnash.certificates.verification import verify_certificate
from crowdnash.interval import Interval

GAME = """
import jax
import crowdnash as cn

def game():
    return cn.games.SIS.sample(jax.random.key(1), num_agents=12, horizon=3)
"""


@pytest.fixture(scope="module")
def game():
    return cn.games.SIS.sample(jax.random.key(1), num_agents=12, horizon=3)


@pytest.fixture(scope="module")
def policy(game):
    return cn.TabularPolicy.uniform(game)


@pytest.fixture(scope="module")
def certificate(game, policy):
    return cn.exploitability(
        game,
        policy,
        key=jax.random.key(2),
        method="paths",
        num_trajectories=32,
        own_influence_agents=2,
    )


def test_it_shows_itself_in_a_line(certificate):
    shown = repr(dataclasses.replace(certificate, maximum=Interval(1 / 3, np.inf)))
    assert shown.startswith("Exploitability(maximum=[0.3333, inf], mean=[")
    assert shown.endswith("12 agents, method='paths', confidence=0.95)")


@pytest.fixture
def folder(tmp_path, policy, certificate):
    (tmp_path / "my_game.py").write_text(GAME)
    policy.save(tmp_path / "policy.npz")
    certificate.save(tmp_path / "certificate.json")
    return tmp_path


def verify(folder, *arguments: str) -> int:
    game = ["--game", f"{folder / 'my_game.py'}:game"]
    return cli.main(["verify", str(folder / "certificate.json"), *game, *arguments])


def test_its_own_certificate_holds(folder, capsys):
    assert verify(folder) == 0
    assert "verified: equal to rounding" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        lambda e: {"maximum": Interval(e.maximum.lower, e.maximum.upper - 0.01)},
        lambda e: {"mean": Interval(e.mean.lower + 0.01, e.mean.upper)},
        lambda e: {"lower": e.lower + 0.001 * (np.arange(12) == 3)},
        lambda e: {"upper_kind": np.full(12, "exact")},
        lambda e: {"frozen": dataclasses.replace(e.frozen, maximum=Interval(0.0, 0.0))},
        lambda e: {
            "origin": dataclasses.replace(e.origin, key=e.origin.key[:-1] + "3"),
        },
        lambda e: {"num_trajectories": 16},
    ],
    ids=["maximum", "mean", "one agent", "kind", "frozen", "seed", "paths"],
)
def test_a_certificate_forged_with_care_does_not_hold(game, policy, certificate, change):
    """Even where whoever changed it wrote the digests anew."""
    forged = dataclasses.replace(certificate, **change(certificate))
    assert not verify_certificate(forged, game, policy).holds


def test_rounding_is_forgiven(game, policy, certificate):
    """As on another machine."""
    near = dataclasses.replace(certificate, value=certificate.value * (1 + 1e-5))
    assert verify_certificate(near, game, policy).holds


def test_a_bit_of_another_policy_or_game_is_refused_without_playing(
    game, policy, certificate, folder, capsys
):
    probs = np.asarray(policy.probs).copy()
    probs[0, 0, 0] = np.nextafter(probs[0, 0, 0], np.float32(1), dtype=np.float32)
    other = cn.TabularPolicy.grouped(probs, policy.groups)
    verification = verify_certificate(certificate, game, other)
    assert verification.fresh is None
    assert "the policy is another" in verification.problems[0]
    recovery = np.nextafter(np.asarray(game.recovery), np.float32(1), dtype=np.float32)
    moved = cn.games.SIS(game.susceptibility, recovery, game.isolation_aversion, horizon=3)
    problems = verify_certificate(certificate, moved, policy).problems
    assert any("the game is another" in problem for problem in problems)
    assert any("the game's parameters is another" in problem for problem in problems)
    other.save(folder / "other.npz")
    assert verify(folder, "--policy", str(folder / "other.npz")) == 1
    assert "does not hold: the policy is another" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["maximum", "sha256", "origin"])
def test_a_file_changed_by_hand_is_not_even_read(folder, capsys, place):
    path = folder / "certificate.json"
    content = json.loads(path.read_text())
    if place == "maximum":
        content["maximum"]["upper"] = float(np.nextafter(content["maximum"]["upper"], 0))
    elif place == "origin":
        content["origin"]["key"] = content["origin"]["key"][:-1] + "3"
    else:
        content["sha256"] = "0" * 64
    path.write_text(json.dumps(content))
    assert verify(folder) == 2
    assert "its numbers were changed after it was written" in capsys.readouterr().err


def test_arrays_changed_by_hand_are_not_read_either(folder, capsys):
    arrays = dict(np.load(folder / "certificate.npz"))
    arrays["lower"] = arrays["lower"] + 1e-6
    np.savez(folder / "certificate.npz", **arrays)
    assert verify(folder) == 2
    assert "certificate.npz is not of this certificate" in capsys.readouterr().err


def test_what_is_missing_is_said(folder, capsys):
    path = str(folder / "certificate.json")
    assert cli.main(["verify", path]) == 2
    assert "name the game with --game" in capsys.readouterr().err
    assert cli.main(["verify", path, "--game", f"{folder / 'my_game.py'}:other"]) == 2
    assert "has no game 'other'" in capsys.readouterr().err
    assert cli.main(["verify", str(folder / "nothing.json")]) == 2
    assert "nothing.json is missing" in capsys.readouterr().err


def test_an_exact_certificate_is_verified_too(tmp_path):
    game = cn.games.RockPaperScissors.sample(jax.random.key(0), num_agents=5, horizon=2)
    policy = cn.TabularPolicy.uniform(game)
    e = cn.exploitability(game, policy, key=jax.random.key(1))
    e.save(tmp_path / "c.json")
    again = Exploitability.load(tmp_path / "c.json")
    assert again.origin == e.origin
    assert verify_certificate(again, game, policy).holds
    with pytest.raises(ValueError, match="does not say of what it is"):
        verify_certificate(dataclasses.replace(again, origin=None), game, policy)
    learned = dataclasses.replace(again, method="learned")
    with pytest.raises(ValueError, match="is not made again"):
        verify_certificate(learned, game, policy)


def test_keys_survive_in_words(game, policy):
    key = jax.random.fold_in(jax.random.key(7), 3)
    origin = Origin.of(game, policy, key, 8, None)
    again = key_from_text(origin.key)
    np.testing.assert_array_equal(jax.random.key_data(again), jax.random.key_data(key))
    assert key_text(again) == origin.key
    assert "jax" in origin.versions
