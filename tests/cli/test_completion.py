"""`crowdnash completion`: tyro's scripts, asked by the shells themselves where they are there."""

import shutil
import subprocess

import pytest

from crowdnash import cli, games
from crowdnash.reproduction import STUDY_NAMES


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The script of each shell, as a file."""
    folder = tmp_path_factory.mktemp("completion")

    def path_of(shell, capsys):
        path = folder / f"crowdnash.{shell}"
        if not path.exists():
            assert cli.main(["completion", shell]) == 0
            path.write_text(capsys.readouterr().out)
        return path

    return path_of


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_places_flags_and_choices(scripts, capsys):
    commands = {*cli.COMMANDS, "--help", "-h"}
    offers = {
        "crowdnash so": {"solve"},
        "crowdnash ": commands,
        "crowdnash solve ": {*games.names(), "--help", "--resume"},
        "crowdnash reproduce ": {*STUDY_NAMES, "fig2b", "all"},
        "crowdnash completion f": {"fish"},
        "crowdnash solve sis --recov": {"--recovery"},
        "crowdnash solve taxi --recov": set(),
        "crowdnash solve sis --num-epochs ": set(),
        "crowdnash solve taxi --num-agents 10 --identity ": {"one-hot", "none"},
        "crowdnash reproduce fig1a --scale s": {"smoke", "small"},
        "crowdnash evaluate runs/x --j": {"--json"},
    }
    questions = [f"source {scripts('bash', capsys)}"]
    for line in offers:
        words = line.split(" ")
        quoted = " ".join(word or "''" for word in words)
        questions.append(
            f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; COMPREPLY=()\n"
            '_tyro_crowdnash; echo "${COMPREPLY[@]}"'
        )
    answer = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(questions)], capture_output=True, text=True, check=True
    )
    assert answer.stderr == ""
    for (line, expected), words in zip(offers.items(), answer.stdout.split("\n"), strict=False):
        assert expected <= set(words.split()), line
        if line.split(" ")[-1] or not expected:
            assert expected == set(words.split()), line


@pytest.mark.slow
def test_every_script_knows_the_flags(scripts, capsys):
    for shell in ("bash", "zsh", "fish"):
        text = scripts(shell, capsys).read_text()
        assert "--learning-rate" in text
        assert "--susceptibility" in text


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_shell_takes_its_script(scripts, capsys, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", str(scripts(shell, capsys))], check=True)


def test_an_unknown_shell_is_one_line(capsys):
    assert cli.main(["completion", "tcsh"]) == 2
    assert "must be one of bash, zsh, fish, not 'tcsh'" in capsys.readouterr().err
