"""The README's Python runs as it stands, and says what it promises."""

import re

import numpy as np
import pytest

import crowdnash as cn
from pages import ROOT, blocks, run

README = ROOT / "README.md"
BLOCKS = blocks(README)


@pytest.mark.slow
def test_python_blocks_run_in_order():
    names: dict = {}
    assert len(BLOCKS) == 4
    printed = [run(block, names, README.name) for block in BLOCKS[:3]]
    found, game = names["certificate"], names["game"]
    assert 0 < found.mean.lower <= found.mean.upper < 0.3
    assert found.maximum.upper < 1.5
    assert f"no agent of {game.num_agents} gains more than" in printed[0]
    # Of 59 others who go with probability p, 59 p must be 19.
    assert abs(names["evenings"].policy.probs[0, 0, 0, 1] - 19 / 59) < 0.03
    assert names["gains"].maximum.lower < 0.1
    uniform = cn.TabularPolicy.uniform(game)
    before = cn.exploitability(game, uniform, key=names["key"], own_influence_agents=0)
    assert before.mean.lower > 10 * found.mean.upper


@pytest.mark.slow
def test_neural_block(tmp_path, monkeypatch):
    names: dict = {}
    monkeypatch.chdir(tmp_path)
    run(BLOCKS[3], names, README.name)
    assert names["actions"].shape == (100,)
    np.testing.assert_array_equal(
        names["policy"].actor.weights[0], names["result"].policy.actor.weights[0]
    )


def test_pictures_exist():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text())
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).stat().st_size > 1000
