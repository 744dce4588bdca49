"""`crowdnash completion`: the scripts, asked by the shells themselves where they are there."""

import functools
import shutil
import subprocess

import pytest

from crowdnash import games
from crowdnash.cli import commands as cli
from crowdnash.cli.completion import script, words_of
from crowdnash.reproduction import STUDIES

COMMANDS = ("solve", "evaluate", "games", "reproduce", "completion")


@functools.cache
def words():
    return words_of(cli._dispatch, COMMANDS)


def completed(tmp_path, line: str) -> list[str]:
    """What bash offers at the end of a line."""
    (tmp_path / "completion.bash").write_text(script("bash", words()))
    given = line.split(" ")
    ask = f"""
        source {tmp_path}/completion.bash
        COMP_WORDS=({" ".join(word or "''" for word in given)}); COMP_CWORD={len(given) - 1}
        _crowdnash; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    found = subprocess.run(
        ["bash", "--norc", "-c", ask], capture_output=True, text=True, check=True
    )
    assert found.stderr == ""
    return found.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_places_flags_and_choices(tmp_path):
    assert completed(tmp_path, "crowdnash so") == ["solve"]
    assert set(completed(tmp_path, "crowdnash ")) == {*COMMANDS, "--help", "--version"}
    assert set(completed(tmp_path, "crowdnash solve ")) == {*games.names(), "--help"}
    assert set(STUDIES) < set(completed(tmp_path, "crowdnash reproduce "))
    assert completed(tmp_path, "crowdnash solve sis --recov") == ["--recovery"]
    assert completed(tmp_path, "crowdnash solve taxi --recov") == []
    assert completed(tmp_path, "crowdnash reproduce fig1a --scale s") == ["smoke", "small"]
    assert completed(tmp_path, "crowdnash solve sis --num-epochs ") == []
    assert "--json" in completed(tmp_path, "crowdnash evaluate runs/x --j")
    assert "one-hot" in completed(tmp_path, "crowdnash solve taxi --num-agents 10 --identity ")


def test_flags_know_whether_they_take_a_value():
    flags = words()["solve"].flags["sis"]
    assert flags["--preset"] == ("practical", "theorem")
    assert flags["--num-epochs"] == ()
    assert flags["--mixing"] is None
    assert flags["--learning-rate"] == ()  # of PPO


def test_fish_s_script_names_every_flag():
    text = script("fish", words())
    for place, flags in words()["solve"].flags.items():
        for flag in flags:
            assert f"and __fish_seen_subcommand_from {place}' -l {flag[2:]}" in text


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_takes_its_script(tmp_path):
    (tmp_path / "it.zsh").write_text(script("zsh", words()))
    subprocess.run(["zsh", "-n", str(tmp_path / "it.zsh")], check=True)


def test_the_command_prints_a_script(capsys, monkeypatch):
    monkeypatch.setattr("crowdnash.cli.completion.words_of", lambda *_: words())
    assert cli.main(["completion", "zsh"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("autoload -U +X bashcompinit && bashcompinit\n_crowdnash() {\n")
    assert printed.endswith("complete -o default -F _crowdnash crowdnash\n")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["completion", "tcsh"])
    assert stopped.value.code == 2
