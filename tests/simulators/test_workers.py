"""Simulators in worker processes: the same play, and clear errors when one goes wrong."""

import multiprocessing
import os
import re
import signal
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor

import jax
import numpy as np
import pytest

import crowdnash as cn
from crowdnash.simulators import SimulatorError, Workers
from crowdnash.simulators import processes as worker_processes
from simulator_toys import Dice, Doors, Drivers, Mortals, uniform

KEY = jax.random.key(0)
LONELY = """
import sys
import numpy as np

class Lonely:
    num_agents, num_actions, horizon, num_states = 2, 2, 2, 1

    def reset(self, seed):
        heavy = [name for name in ("jax", "equinox", "scipy") if name in sys.modules]
        if heavy:
            raise RuntimeError(f"imported {heavy}")
        return np.zeros(2, int)

    def step(self, actions):
        return np.zeros(2, int), actions + 0.0, np.ones(2, bool), None
"""


def mortal_forever():
    """A function that makes a simulator goes to the workers too."""
    return Mortals()


def impossible():
    """No simulator comes of it."""
    return 1 / 0


class Trap(Drivers):
    """Does something terrible at step 3 of its second episode, once `armed` exists."""

    def __init__(self, kind, armed):
        super().__init__(num_agents=6, horizon=5)
        self.kind, self.armed, self.episodes = kind, str(armed), 0

    def reset(self, seed):
        self.count, self.episodes = 0, self.episodes + 1
        return super().reset(seed)

    def step(self, actions):
        self.count += 1
        if self.count == 3 and os.path.exists(self.armed):
            if self.kind == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kind == "leaves":
                os._exit(7)
            if self.kind == "hangs":
                time.sleep(60)
            if self.kind == "raises":
                raise OverflowError("of population")
        seen, rewards, alive, legal = super().step(actions)
        if self.count == 3 and os.path.exists(self.armed) and self.kind == "nonsense":
            rewards = rewards[:2]
        if self.count == 3 and os.path.exists(self.armed) and self.kind == "nan":
            rewards[4] = np.nan
        return seen, rewards, alive, legal


@pytest.mark.parametrize("make", [lambda: Drivers(), lambda: Doors(), Mortals, mortal_forever])
def test_play_in_workers_is_the_play_in_this_process(make):
    here = cn.simulate(make(), uniform(make()), key=KEY, num_trajectories=5)
    with Workers(make, num_workers=2) as workers:
        there = cn.simulate(workers, uniform(make()), key=KEY, num_trajectories=5)
    np.testing.assert_array_equal(here.states, there.states)
    np.testing.assert_array_equal(here.actions, there.actions)
    np.testing.assert_array_equal(here.rewards, there.rewards)
    np.testing.assert_array_equal(here.alive, there.alive)
    np.testing.assert_array_equal(here.legal, there.legal)


def test_learning_in_workers_is_learning_here():
    sim = Drivers(num_agents=6, horizon=3)
    learner = cn.PolicyMirrorDescent.practical(num_epochs=3, td_epochs=5, evaluation="td")
    here = cn.solve(sim, learner, key=KEY)
    with Workers(sim, num_workers=2) as workers:
        np.testing.assert_array_equal(workers.agent_features, sim.agent_features)
        there = cn.solve(workers, learner, key=KEY)
    np.testing.assert_array_equal(here.policy.probs, there.policy.probs)


@pytest.fixture(scope="module")
def pool():
    """An executor whose tasks run in fresh processes, as those of a cluster do."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@pytest.mark.parametrize("make", [Doors, Dice])
def test_play_in_tasks_of_an_executor_is_the_play_in_this_process(make, pool):
    here = cn.simulate(make(), uniform(make()), key=KEY, num_trajectories=5)
    with Workers(make, num_workers=2, executor=pool) as workers:
        there = cn.simulate(workers, uniform(make()), key=KEY, num_trajectories=5)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(here.legal, there.legal)


def test_a_task_that_goes_wrong_is_one_line_and_is_started_anew(pool, tmp_path):
    armed = tmp_path / "armed"
    with Workers(Trap("raises", armed), num_workers=1, executor=pool) as workers:
        policy = uniform(workers)
        armed.write_text("now")
        with pytest.raises(SimulatorError, match=r"step 2 .*raised OverflowError: of population$"):
            cn.simulate(workers, policy, key=KEY, num_trajectories=2)
        armed.unlink()
        there = cn.simulate(workers, policy, key=KEY, num_trajectories=2)
    here = cn.simulate(Trap("raises", armed), policy, key=KEY, num_trajectories=2)
    np.testing.assert_array_equal(here.rewards, there.rewards)
    rule = "a worker cannot make the simulator: ZeroDivisionError"
    with pytest.raises(SimulatorError, match=rule):
        Workers(impossible, executor=pool)
    with pytest.raises(ValueError, match="python must be None beside executor"):
        Workers(Drivers(), executor=pool, python=sys.executable)


class Ray(Executor):
    """As `docs/simulators.md` writes it."""

    def submit(self, fn, /, *args, **kwargs):
        import ray

        return ray.remote(max_retries=0)(fn).remote(*args, **kwargs).future()


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine; its tasks find what the tests import."""
    ray = pytest.importorskip("ray")
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ray.init(num_cpus=2, log_to_driver=False, runtime_env={"env_vars": paths})
    yield Ray()
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_play_and_learning_in_tasks_of_ray(cluster):
    here = cn.simulate(Doors(), uniform(Doors()), key=KEY, num_trajectories=5)
    with Workers(Doors, num_workers=2, executor=cluster) as workers:
        there = cn.simulate(workers, uniform(workers), key=KEY, num_trajectories=5)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(here.legal, there.legal)
    sim = Drivers(num_agents=6, horizon=3)
    learner = cn.PolicyMirrorDescent.practical(num_epochs=3, td_epochs=5, evaluation="td")
    alone = cn.solve(sim, learner, key=KEY)
    with Workers(sim, num_workers=2, executor=cluster) as workers:
        spread = cn.solve(workers, learner, key=KEY)
    np.testing.assert_array_equal(alone.policy.probs, spread.policy.probs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("raises", r"^Trap: .*step 2 .*raised OverflowError: of population$"),
        ("leaves", r"^Trap: a worker ended by WorkerCrashedError"),
        ("hangs", r"^Trap: a worker did not answer within 1 s and was ended, at step 2"),
    ],
)
def test_a_task_of_ray_that_goes_wrong_is_one_line(cluster, kind, rule, tmp_path):
    armed = tmp_path / "armed"
    with Workers(Trap(kind, armed), num_workers=1, executor=cluster, time_limit=1.0) as workers:
        policy = uniform(workers)
        armed.write_text("now")
        with pytest.raises(SimulatorError) as raised:
            cn.simulate(workers, policy, key=KEY, num_trajectories=2)
        assert re.search(rule, str(raised.value)), str(raised.value)
        assert "\n" not in str(raised.value)
        armed.unlink()
        there = cn.simulate(workers, policy, key=KEY, num_trajectories=2)
    here = cn.simulate(Trap(kind, armed), policy, key=KEY, num_trajectories=2)
    np.testing.assert_array_equal(here.rewards, there.rewards)


def test_workers_import_neither_jax_nor_crowdnash(tmp_path):
    file = tmp_path / "lonely.py"
    file.write_text(LONELY)
    with Workers(f"{file}:Lonely", num_workers=1, python=sys.executable) as workers:
        assert (workers.num_agents, workers.horizon) == (2, 2)
        played = cn.simulate(workers, uniform(workers), key=KEY, num_trajectories=3)
    np.testing.assert_array_equal(played.rewards, played.actions)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("dies", r"a worker died by SIGKILL, at step 2 of the episodes? with seeds? \d+"),
        pytest.param("leaves", r"a worker ended with status 7, at step 2", marks=pytest.mark.slow),
        ("hangs", r"did not answer within 1 s and was ended, at step 2"),
        ("raises", r"step 2 of the episode with seed \d+ raised OverflowError: of population"),
        (
            "nonsense",
            r"step 2 .*rewards must be numbers of shape \[6\], not float64",
        ),
        ("nan", r"agent 4 at step 2 .*seed \d+: reward must be a finite number, not nan"),
    ],
)
def test_a_worker_that_goes_wrong_is_one_line_and_the_run_goes_on(kind, rule, tmp_path):
    """Broken in the second epoch; from the state after the first it ends where it would have."""
    armed = tmp_path / "armed"
    learner = cn.PolicyMirrorDescent.practical(num_epochs=3, td_epochs=3, evaluation="td")
    whole = cn.solve(Trap(kind, armed), learner, key=KEY)
    states = []

    def keep(state, metrics):
        states.append(state)
        armed.write_text("now")

    with Workers(Trap(kind, armed), num_workers=2, time_limit=1.0) as workers:
        with pytest.raises(SimulatorError) as raised:
            cn.solve(workers, learner, key=KEY, callback=keep)
        assert re.search(rule, str(raised.value)), str(raised.value)
        assert str(raised.value).startswith("Trap: ")
        assert "\n" not in str(raised.value)
        assert len(states) == 1
        armed.unlink()
        rest = cn.solve(workers, learner, key=KEY, state=states[0])
    np.testing.assert_array_equal(rest.policy.probs, whole.policy.probs)


def test_one_worker_steps_like_the_simulator_it_holds():
    with Workers(Doors(), num_workers=1) as workers:
        sim, actions = Doors(), np.array([0, 2, 1, 0, 0, 2])
        np.testing.assert_array_equal(workers.reset(5), sim.reset(5))
        for mine, other in zip(workers.step(actions), sim.step(actions), strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-6)


def test_ctrl_c_leaves_no_late_answer_behind(monkeypatch):
    """Interrupted while the workers play, the next call is as if it had not been."""
    here = cn.simulate(Drivers(), uniform(Drivers()), key=KEY, num_trajectories=3)
    with Workers(Drivers(), num_workers=2) as workers:
        cn.simulate(workers, uniform(Drivers()), key=KEY, num_trajectories=3)
        calls = []

        def interrupted(self, seconds):
            calls.append(0)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return receive(self, seconds)

        receive = worker_processes.Process.receive
        monkeypatch.setattr(worker_processes.Process, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cn.simulate(workers, uniform(Drivers()), key=KEY, num_trajectories=3)
        monkeypatch.undo()
        there = cn.simulate(workers, uniform(Drivers()), key=KEY, num_trajectories=3)
    np.testing.assert_array_equal(here.rewards, there.rewards)
    with pytest.raises(SimulatorError, match="Drivers: these workers are closed"):
        cn.simulate(workers, uniform(Drivers()), key=KEY, num_trajectories=3)


def test_nothing_is_left_behind():
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    workers = Workers(Dice(), num_workers=2)
    cn.simulate(workers, uniform(Dice()), key=KEY, num_trajectories=3)
    workers.close()
    workers.close()
    after = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    assert not {name for name in after - before if name.startswith("crowdnash-")}


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"sim": 3}, "sim must be a simulator or make one, not 3"),
        ({"sim": "nowhere"}, "sim must be 'package.module:name' or 'file.py:name'"),
        ({"sim": "no_such_module:f"}, "cannot make the simulator: ModuleNotFoundError"),
        ({"sim": Dice(), "num_workers": 0}, "num_workers must be at least 1"),
        ({"sim": Dice(), "time_limit": 0.0}, "time_limit must be > 0 and finite"),
        ({"sim": Dice(), "python": "/no/such/python"}, "/no/such/python cannot be started"),
        ({"sim": Dice(), "python": "/bin/true"}, "a worker of /bin/true ended with status 0"),
        ({"sim": open}, "a worker cannot make the simulator"),
    ],
    ids=lambda case: case if isinstance(case, str) else "-".join(case),
)
def test_arguments_that_make_no_workers(arguments, rule):
    with pytest.raises(ValueError, match=re.escape(rule)):
        Workers(**arguments)


def test_what_cannot_be_pickled_is_said():
    sim = Drivers()
    sim.lock = __import__("threading").Lock()
    with pytest.raises(ValueError, match="sim must be pickled to reach the workers"):
        Workers(sim)
