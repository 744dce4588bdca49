"""What is chosen for speed and depends on the kind of device: every such number, with its reason.

Results do not depend on it but for rounding: random draws are functions of counters, and the
cipher behind them is written out on every device, for hardware generators draw other numbers. Those
for CPUs are measured (`benchmarks/`). Those for accelerators follow from how GPUs work, and have
not been measured on one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tuning:
    """Sizes and ways of computing for one kind of device.

    Attributes:
        lanes: agents x trajectories that are simulated together, about. A CPU's working set should
            stay in cache. A GPU keeps some 10^5 threads in flight and needs several times as many
            to hide memory's latency; a lane takes about 10 bytes a step.
        shared_lanes: the same where several devices share the agents: a step then waits for a sum,
            30 us between GPUs, less than a tenth of the time of so many lanes on a CPU.
        block_lanes: agents x trajectories that are played and fitted together where agents come
            block by block.
        draws: random numbers drawn before a scan over steps, at most. Larger blocks leave a CPU's
            cache; on a GPU the whole horizon had better be one block, for each costs a launch.
        words_in_one_kernel: whether both words of the cipher are made one reduction. XLA compiles
            two outputs into two loops on a CPU, and fuses them on a GPU, where it would only be
            work.
        masked_pairs: up to so many state-action pairs, what is counted by pair is summed under
            masks, above it is scattered. Scatters are slow on a CPU. On a GPU they are atomic, so
            that float sums differ from one run to the next; masks do not, but their programs grow
            with the pairs, on any device.
        reduced_together: arrays that one reduction sums at once, at most. It saves passes over what
            they are computed from; on a GPU each takes registers and shared memory of every block.
        dense_groups: up to so many groups, tiles are summed by a product with the membership
            matrix, above by a scatter. Matrix products are what a GPU does best.
        fused_entries: tables of mean-field games up to this size are contracted by plain sums, not
            matrix products: XLA compiles a small loop into one kernel only if there is no matrix
            product in it (5 times faster on a CPU; on a GPU a product is a launch of its own).
        ppo_rows: rows of a minibatch that go through a network together, None for all: on a CPU
            what stays in cache, on a GPU what fills it.
        ppo_networks: agents' own networks that are updated together, None for all; for the same
            reason.
    """

    lanes: int
    shared_lanes: int
    block_lanes: int
    draws: int
    words_in_one_kernel: bool
    masked_pairs: int
    reduced_together: int
    dense_groups: int
    fused_entries: int
    ppo_rows: int | None
    ppo_networks: int | None


CPU = Tuning(
    lanes=20_480,
    shared_lanes=81_920,
    block_lanes=16384,
    draws=2**20,
    words_in_one_kernel=True,
    masked_pairs=16,
    reduced_together=32,
    dense_groups=32,
    fused_entries=2_048,
    ppo_rows=2_048,
    ppo_networks=16,
)
ACCELERATOR = Tuning(
    lanes=2**20,
    shared_lanes=2**20,
    block_lanes=2**20,
    draws=2**25,
    words_in_one_kernel=False,
    masked_pairs=16,
    reduced_together=8,
    dense_groups=256,
    fused_entries=32_768,
    ppo_rows=None,
    ppo_networks=None,
)


def tuning() -> Tuning:
    """That of the device that JAX computes on by default; read when a program is traced."""
    import jax

    return CPU if jax.default_backend() == "cpu" else ACCELERATOR
