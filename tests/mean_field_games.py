"""Mean-field games for the tests, given by float64 tables: A-SIS, A-RPS and random ones."""

import numpy as np

from crowdnash import mean_field

RPS_LOSS, RPS_WIN = np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0])


def sis_tables(susceptibility: float, horizon: int = 20) -> mean_field.TabularMeanFieldGame:
    """A-SIS for identical agents, in float64: states (I,H), actions (D,U)."""
    transition = np.zeros((2, 2, 2))
    transition[0] = [0.7, 0.3]
    transition[1, :, 1] = 1
    slope = np.zeros((2, 2, 2, 2, 2))
    slope[1, 1, :, 0, 1] = susceptibility * np.array([1, -1])
    reward = -np.array([[1.5, 1.0], [0.5, 0.0]])
    return mean_field.TabularMeanFieldGame(
        transition, reward, [0.5, 0.5], horizon, transition_slope=slope
    )


def rps_tables(crowding: float = 3.0, horizon: int = 10) -> mean_field.TabularMeanFieldGame:
    """A-RPS as printed, for identical agents, in float64."""
    transition = np.broadcast_to(np.eye(3), (3, 3, 3))
    slope = np.zeros((3, 3, 3, 3))
    for s, a in np.ndindex(3, 3):
        slope[s, a, :, a] -= crowding
        slope[s, a, (s + 1) % 3] -= RPS_LOSS[s]
        slope[s, a, (s + 2) % 3] += RPS_WIN[s]
    return mean_field.TabularMeanFieldGame(
        transition, np.zeros((3, 3)), np.full(3, 1 / 3), horizon, reward_slope=slope
    )


def random_tables(seed: int, horizon: int = 3, groups: int = 1, **sizes: int):
    """Affine laws of random size, different at every step and for every group."""
    rng = np.random.default_rng(seed)
    s, a = sizes.get("num_states", 3), sizes.get("num_actions", 2)
    lead = (horizon,) if groups == 1 else (horizon, groups)
    corners = rng.dirichlet(np.ones(s), size=(s * a, *lead, s, a))
    slope = np.moveaxis(corners, 0, -1).reshape(*lead, s, a, s, s, a)
    shares = None if groups == 1 else rng.dirichlet(np.ones(groups))
    return mean_field.TabularMeanFieldGame(
        np.zeros((*lead, s, a, s)),
        rng.normal(size=(*lead, s, a)),
        rng.dirichlet(np.ones(s)),
        horizon,
        transition_slope=slope,
        reward_slope=rng.normal(size=(*lead, s, a, s, a)),
        group_weights=shares,
    )


def random_probs(seed: int, mfg: mean_field.MeanFieldGame) -> np.ndarray:
    shape = (mfg.horizon, mfg.num_states)
    shape = shape if mfg.num_groups == 1 else (mfg.num_groups, *shape)
    return np.random.default_rng(seed).dirichlet(np.ones(mfg.num_actions), size=shape)
