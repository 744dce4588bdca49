"""The README's Python runs as it stands, and says what it promises."""

import re
from pathlib import Path

import crowdnash as cn

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_python_blocks_run_in_order(capsys):
    names: dict = {}
    assert len(BLOCKS) == 2
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    found, game = names["found"], names["game"]
    assert 0 < found.mean.lower <= found.mean.upper < 0.3
    assert found.maximum.upper < 1.5
    assert f"no agent of {game.num_agents} gains more than" in capsys.readouterr().out
    uniform = cn.TabularPolicy.uniform(game)
    before = cn.exploitability(game, uniform, key=names["key"], own_influence_agents=0)
    assert before.mean.lower > 10 * found.mean.upper


def test_pictures_exist():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (Path(__file__).parent.parent / picture).stat().st_size > 1000
