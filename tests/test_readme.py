"""The README's Python runs as it stands, and says what it promises."""

import re
from pathlib import Path

import numpy as np
import pytest

import crowdnash as cn

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(block: str, names: dict) -> None:
    exec(compile(block, "README.md", "exec"), names)


@pytest.mark.slow
def test_python_blocks_run_in_order(capsys):
    names: dict = {}
    assert len(BLOCKS) == 3
    for block in BLOCKS[:2]:
        run(block, names)
    found, game = names["found"], names["game"]
    assert 0 < found.mean.lower <= found.mean.upper < 0.3
    assert found.maximum.upper < 1.5
    assert f"no agent of {game.num_agents} gains more than" in capsys.readouterr().out
    uniform = cn.TabularPolicy.uniform(game)
    before = cn.exploitability(game, uniform, key=names["key"], own_influence_agents=0)
    assert before.mean.lower > 10 * found.mean.upper


@pytest.mark.slow
def test_neural_block(tmp_path, monkeypatch):
    names: dict = {}
    monkeypatch.chdir(tmp_path)
    run(BLOCKS[2], names)
    assert names["actions"].shape == (100,)
    np.testing.assert_array_equal(
        names["policy"].actor.weights[0], names["result"].policy.actor.weights[0]
    )


def test_pictures_exist():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (Path(__file__).parent.parent / picture).stat().st_size > 1000
