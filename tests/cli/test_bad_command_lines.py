"""A hundred bad command lines: each is refused in one clear line, and leaves nothing behind."""

from pathlib import Path

import pytest

from crowdnash import cli

# `here` is a folder with a file, an empty folder, and folders that are almost a run; see `here`.
REFUSED = {
    # no command, or none that there is
    "solv sis": "no command 'solv'; did you mean solve?",
    "Solve sis": "no command 'Solve'; did you mean solve?",
    "meanfield sis": "no command 'meanfield'; did you mean mean-field?",
    "xyz": "no command 'xyz'; there are solve, evaluate, verify, report,",
    "--verbose": "no command '--verbose'; there are solve,",
    "-x": "no command '-x'; there are solve,",
    "''": "no command ''; there are solve,",
    "sis": "no command 'sis'",
    # no game, or none that there is
    "solve": "game must come first: one of beach-bar,",
    "solve --num-epochs 3": "game must come first: one of beach-bar,",
    "solve siss": "game must be one of beach-bar, congestion,",
    "solve SIS": "not 'SIS'",
    "solve ''": "game must be one of",
    "solve .": "game must be one of",
    "solve a_file": "not 'a_file'",
    "solve mine.py:make": "mine.py:make looks like a simulator of your own",
    "solve tax": "rock-paper-scissors, route-choice, sis, taxi, not 'tax'",
    "symmetry": "game must come first: one of beach-bar,",
    "symmetry nosuch": "not 'nosuch'",
    "symmetry taxi": "taxi is only a simulator",
    "mean-field": "game must come first: one of beach-bar,",
    "mean-field taxi": "taxi is only a simulator",
    "mean-field rpss": "not 'rpss'",
    "solve sis rps": "'rps' is one word too many",
    "solve sis sis": "'sis' is one word too many",
    # flags that there are not
    "solve sis --num-agent 10": "no flag --num-agent; did you mean --num-agents?",
    "solve sis --num_agentss 10": "did you mean --num-agents?",
    "solve sis --epochs 10": "no flag --epochs",
    "solve sis --heterogenity=0.1": "no flag --heterogenity; did you mean --heterogeneity?",
    "solve sis --zzzzzz": "no flag --zzzzzz",
    "solve sis -n 10": "no flag -n",
    "solve sis --zone1-pay 3": "no flag --zone1-pay",
    "solve sis --json": "no flag --json",
    "evaluate empty --sead 3": "no flag --sead; did you mean --seed?",
    "report empty --open": "no flag --open",
    "games sis": "'sis' is one word too many",
    "games --jsno": "no flag --jsno; did you mean --json?",
    "symmetry sis --num-epochs 3": "no flag --num-epochs",
    "mean-field sis --iterations 3": "no flag --iterations; did you mean --num-iterations?",
    "reproduce fig1a --scales smoke": "no flag --scales; did you mean --scale?",
    "completion bash --force": "no flag --force",
    # values that are missing
    "solve sis --num-agents": "--num-agents needs a value",
    "solve sis --num-agents --horizon 3": "--num-agents needs a value",
    "solve sis --out": "--out needs a value",
    "solve --resume": "--resume needs a value",
    "evaluate": "DIR is missing",
    "evaluate --json": "DIR is missing",
    "report": "DIR is missing",
    "reproduce": "is missing",
    "completion": "{bash,zsh,fish} is missing",
    # devices and processes
    "solve sis --devices": "--devices needs a value",
    "solve sis --devices many": "--devices must be INT, not 'many'",
    "solve sis --devices 0": "devices must be at least 1, not 0",
    "solve sis --share agents": "share is for runs with devices or distributed",
    "solve sis --devices 1 --share tables": "--share must be one of auto, trajectories, agents,",
    "solve sis --num-processes 2": "num_processes is for runs with distributed",
    "solve sis --process-id one": "--process-id must be INT, not 'one'",
    "solve sis --distributed --devices 2": "devices is for one process: with distributed",
    "solve sis --distributed --num-processes 2": "must be given together, or none of them",
    "solve sis --distributed --host-timeout soon": "--host-timeout must be FLOAT, not 'soon'",
    "solve sis --distributed --host-timeout 0": "host_timeout must be ",
    "solve sis --distributed --coordinator-address h:1 --num-processes 2 --process-id 2": (
        "process_id must be in 0..1, not 2"
    ),
    "solve sis --distributed --coordinator-address h --num-processes 2 --process-id 1": (
        "coordinator_address must be HOST:PORT, not 'h'"
    ),
    # values of the wrong type
    "solve sis --num-agents many": "--num-agents must be INT, not 'many'",
    "solve sis --num-agents 2.5": "--num-agents must be INT, not '2.5'",
    "solve sis --num-agents 1e3": "--num-agents must be INT, not '1e3'",
    "solve sis --num-agents ''": "--num-agents must be INT, not ''",
    "solve sis --num-agents True": "--num-agents must be INT, not 'True'",
    "solve sis --num-agents [10,20]": "--num-agents must be INT, not '[10,20]'",
    "solve sis --num-agents 10,20": "--num-agents must be INT, not '10,20'",
    "solve sis --num-agents 10 20": "'20' is one word too many",
    "solve sis --horizon=ten": "--horizon must be INT, not 'ten'",
    "solve sis --temperature warm": "--temperature must be FLOAT, not 'warm'",
    "solve sis --temperature 0,1": "--temperature must be FLOAT, not '0,1'",
    "solve sis --groups pairs": "not 'pairs'",
    "solve sis --groups 2.5": "not '2.5'",
    "solve sis --step-size big": "--step-size must be",
    "solve sis --preset best": "practical, theorem, not 'best'",
    "solve sis --mixing yes": "'yes' is one word too many",
    "solve sis --heterogeneity much": "--heterogeneity must be",
    "solve sis --heterogeneity recovery=much": "--heterogeneity must be",
    "solve sis --heterogeneity recovery=": "--heterogeneity must be",
    "solve sis --seed one": "--seed must be INT, not 'one'",
    "solve taxi --identity name": "--identity must be one of none, one-hot,",
    "solve rps --payoffs given": "--payoffs must be one of printed, cited, not 'given'",
    "mean-field sis --method newton": "--method must be one of mirror_descent,",
    "symmetry sis --against-groups all": "--against-groups must be",
    "symmetry sis --against-groups 1,,2": "--against-groups must be",
    "symmetry sis --against-groups ''": "--against-groups must be",
    "evaluate empty --confidence high": "--confidence must be",
    "reproduce fig1a --scale huge": "--scale must be one of smoke, small, paper, not 'huge'",
    "reproduce fig1a --seed x": "--seed must be INT, not 'x'",
    "case ev-charging --study tolls": "--study of ev-charging must be one of none, learners, all,",
    "case sioux-falls --study learners": "--study of sioux-falls must be one of none, tolls,",
    "completion tcsh": "must be one of bash, zsh, fish, not 'tcsh'",
    # values out of range
    "solve sis --num-agents 1": "num_agents",
    "solve sis --num-agents 0": "num_agents",
    "solve sis --num-agents -5": "num_agents",
    "solve sis --num-agents 10000000000000": "bytes",
    "solve sis --horizon 0": "horizon",
    "solve sis --num-epochs 0": "num_epochs",
    "solve sis --td-epochs 0": "td_epochs",
    "solve sis --td-epochs -1": "td_epochs",
    "solve sis --temperature -1": "temperature",
    "solve sis --temperature nan": "temperature",
    "solve sis --temperature inf": "temperature",
    "solve sis --confidence 1.5": "confidence",
    "solve sis --confidence nan": "confidence",
    "solve sis --seed -1": "seed",
    "solve sis --seed 4294967296": "seed must be below 2**32",
    "solve sis --evaluate-every -1": "evaluate_every",
    "solve sis --checkpoint-seconds -1": "checkpoint_seconds",
    "solve sis --checkpoint-every 0 --checkpoint-seconds 0": "must not both be 0",
    "solve sis --num-agents 5 --groups 6": "groups",
    "solve sis --groups 0": "groups",
    "solve sis --heterogeneity -0.1": "heterogeneity",
    "solve sis --heterogeneity nan": "heterogeneity",
    "solve sis --heterogeneity speed=0.1": "speed",
    "solve sis --heterogeneity 2": "susceptibility must be in [0, 1]",
    "solve sis --recovery 7": "recovery",
    "solve taxi --num-agents 2 --learning-rate -1": "learning_rate",
    "solve taxi --minibatch-size 0": "minibatch_size",
    "symmetry sis --num-agents 1": "num_agents",
    "symmetry sis --seed -1": "seed",
    "symmetry sis --num-agents 4 --groups 5": "groups",
    "symmetry sis --num-agents 4 --against-groups 0": "0",
    "mean-field sis --num-iterations -1": "num_iterations",
    "mean-field sis --tolerance nan": "tolerance",
    "mean-field sis --temperature -1": "temperature",
    "mean-field sis --step-size 0": "step_size",
    "reproduce fig1a --seed -1 --scale smoke": "seed",
    # files and folders
    "solve sis --out a_file": "a_file",
    "solve sis --out full": "full",
    "solve sis --out a_file/run": "a_file",
    "solve sis --resume nowhere": "nowhere",
    "solve sis --resume empty": "not a run directory",
    "solve sis --resume a_file": "a_file",
    "solve --resume damaged": "config.json",
    "solve --resume listed": "config.json",
    "solve --resume nested": "config.json",
    "solve --resume latin": "config.json",
    "evaluate nowhere": "nowhere: no such run directory",
    "evaluate empty": "empty is not a run directory",
    "evaluate a_file": "a_file",
    "evaluate damaged": "config.json",
    "evaluate empty full": "'full' is one word too many",
    "report nowhere": "nowhere: no such run directory",
    "report empty": "empty is not a run directory",
    "report a_file": "a_file",
    "report damaged": "config.json",
    "symmetry sis --out somewhere": "--out needs --against-groups",
    "symmetry sis --against-groups 1 --out full": "--out must be new or empty",
    "reproduce fig9": "experiment must be one of fig1a,",
    "reproduce fig1": "experiment must be one of fig1a,",
    "reproduce ''": "experiment must be one of fig1a,",
    "reproduce theorem1 --scale smoke --out a_file": "a_file",
    "reproduce theorem1 --scale smoke --out full": "full",
    "reproduce all --scale smoke --out full": "full",
    # sweeps
    "sweep": "FILE is missing",
    "sweep --workers 2": "FILE is missing",
    "sweep nowhere.toml": "nowhere.toml: No such file",
    "sweep full": "full: Is a directory",
    "sweep damaged/config.json": "is damaged",
    "sweep good.toml sis": "'sis' is one word too many",
    "sweep good.toml --worker 2": "no flag --worker; did you mean --workers?",
    "sweep good.toml --workers": "--workers needs a value",
    "sweep good.toml --workers two": "--workers must be INT, not 'two'",
    "sweep good.toml --workers 0": "num_workers must be at least 1, not 0",
    "sweep good.toml --workers 2 --ray": "--workers and --ray exclude each other",
    "sweep good.toml --executor threads": "must be written module:factory, got 'threads'",
    "sweep good.toml --executor no_module:make": "No module named 'no_module'",
    "sweep good.toml --executor os:threads": "os has no threads",
    "sweep good.toml --executor os:sep": "sep is no function but '/'",
    "sweep good.toml --executor os:getpid": "must be a concurrent.futures.Executor, got ",
    "sweep good.toml --against sed": "no setting 'sed' in [grid]; did you mean seed?",
    "sweep good.toml --out full": "out must be a new or empty directory",
    "sweep good.toml --out damaged": "config.json is damaged",
    "sweep good.toml --out listed": "out must be new, empty or of a sweep",
    "sweep without.toml": "without.toml has no [grid]: settings, each with a list of its values",
    "sweep unknown.toml": "no setting 'num_agent'; did you mean num_agents?",
    "sweep section.toml": "no setting 'learner.temprature'; did you mean learner.temperature?",
    "sweep shared.toml": "'game_parameters.horizn'; did you mean game_parameters.horizon?",
    "sweep hollow.toml": "learner.groups in [grid] is an empty list",
    "sweep single.toml": "seed in [grid] must be a list of values, got 3",
    "sweep twice.toml": "seed in [grid] has 1 twice",
    "sweep typed.toml": "num_agents must be an integer, got 'many'",
    "sweep gameless.toml": "gameless.toml has no setting game",
    "sweep misspelt.toml": "game must be one of beach-bar,",
}
GRIDS = {
    "good": 'game = "sis"\n[grid]\nseed = [0, 1]',
    "without": 'game = "sis"\nseed = 3',
    "unknown": 'game = "sis"\n[grid]\nnum_agent = [3]',
    "section": 'game = "sis"\n[grid.learner]\ntemprature = [0.1]',
    "shared": 'game = "sis"\n[game_parameters]\nhorizn = 3\n[grid]\nseed = [0]',
    "hollow": 'game = "sis"\n[grid]\nlearner.groups = []',
    "single": 'game = "sis"\n[grid]\nseed = 3',
    "twice": 'game = "sis"\n[grid]\nseed = [1, 2, 1]',
    "typed": 'game = "sis"\n[grid]\nnum_agents = [3, "many"]',
    "gameless": "[grid]\nseed = [0]",
    "misspelt": '[grid]\ngame = ["sis", "siss"]',
}
RIGHT = {
    "games --json": '"rock-paper-scissors"',
    "games": "rock-paper-scissors",
    "help": "usage: crowdnash COMMAND",
    "--version": "crowdnash ",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, which nothing may change."""
    (tmp_path / "a_file").write_text("something")
    (tmp_path / "empty").mkdir()
    configs = {"damaged": b"{", "listed": b"[]", "nested": b"[" * 100_000, "latin": b'{"\xe9": 1}'}
    for name, config in configs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_bytes(config)
    for name, grid in GRIDS.items():
        (tmp_path / f"{name}.toml").write_text(grid)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    yield tmp_path
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder, and every folder as None."""
    return {str(p): None if p.is_dir() else p.read_bytes() for p in sorted(folder.rglob("*"))}


def words(line: str) -> list[str]:
    return [word.strip("'") for word in line.split()]


def test_there_are_a_hundred():
    assert len(REFUSED) >= 100


@pytest.mark.parametrize("line", REFUSED)
@pytest.mark.usefixtures("here")
def test_is_refused_in_one_line(line, capsys):
    assert cli.main(words(line)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("crowdnash: error: ")
    assert printed.err.count("\n") == 1
    assert len(printed.err) < 400
    assert REFUSED[line] in printed.err


@pytest.mark.parametrize("line", RIGHT)
@pytest.mark.usefixtures("here")
def test_gives_a_right_result(line, capsys):
    assert cli.main(words(line)) == 0
    printed = capsys.readouterr()
    assert RIGHT[line] in printed.out
    assert printed.err == ""
