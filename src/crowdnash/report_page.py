"""The page of a report: HTML from what a run saved; it needs no other file and no network."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from os import PathLike
from typing import Any

import numpy as np

from crowdnash import html_page
from crowdnash.evaluation import Evaluation, PolicyEvaluation
from crowdnash.experiment import load_config
from crowdnash.experiment_config import ExperimentConfig
from crowdnash.html_page import Picture
from crowdnash.policy import TabularPolicy
from crowdnash.run_directory import Row, RunDirectory, read_metrics

POLICY_NAMES = {
    "last": "last iterate",
    "average": "average policy",
    "uniform": "uniform policy",
}
"""The evaluated policies in words, in the order of the report."""

_MAX_TABLE_ROWS = 40


@dataclass(frozen=True)
class SavedRun:
    """What a run directory holds, as far as the run has got.

    Attributes:
        directory: the run.
        config: its settings.
        rows: its metrics.
        policies: the learned policies by name ("last", "average"), empty before the end.
        evaluation: their certificates, or None before the end.
    """

    directory: RunDirectory
    config: ExperimentConfig
    rows: tuple[Row, ...]
    policies: dict[str, TabularPolicy]
    evaluation: Evaluation | None

    @classmethod
    def load(cls, path: str | PathLike[str]) -> SavedRun:
        """Read a run.

        Raises:
            ValueError: not a run directory, a damaged file, or nothing to report yet.
        """
        directory = RunDirectory.open(path)
        config = load_config(directory)
        rows = read_metrics(directory.metrics_jsonl)
        files = {"last": directory.last_policy, "average": directory.policy}
        evaluation = Evaluation.load(directory) if directory.evaluation.exists() else None
        policies = {name: TabularPolicy.load(file) for name, file in files.items() if file.exists()}
        if evaluation is not None:
            shape = evaluation.policies["uniform"].flow.shape
            for name, policy in policies.items():
                if policy.probs.shape[1:] != shape or policy.num_agents != evaluation.num_agents:
                    raise ValueError(f"{files[name]} is a policy for another game than the run's")
        if not rows and evaluation is None:
            raise ValueError(f"{directory.path} has nothing to report yet: no epoch is done")
        return cls(directory, config, rows, policies, evaluation)

    @property
    def certified_rows(self) -> tuple[Row, ...]:
        """The metrics of the epochs that were certified."""
        return tuple(row for row in self.rows if row.get("exploitability_max_lower") is not None)


def page(saved: SavedRun, drawn: list[tuple[Picture, bytes]]) -> str:
    """Return the page of a run, with its pictures and their SVG files inside."""
    config = saved.config
    title = f"{config.game}: {_players(config)}, {_grouping(config)}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        *_summary(saved),
        "<h2>Pictures</h2>",
        *(html_page.figure(picture.caption, svg) for picture, svg in drawn),
    ]
    if saved.certified_rows:
        sections += ["<h2>Certificates along the way</h2>", _metrics_table(saved)]
    sections += ["<h2>Settings</h2>", html_page.settings_table(config.settings())]
    return html_page.document(title, sections)


def _players(config: ExperimentConfig) -> str:
    agents, horizon = (config.game_parameters.get(n) for n in ("num_agents", "horizon"))
    return f"{agents} agents, {horizon} steps"


def _grouping(config: ExperimentConfig) -> str:
    if config.groups == "symmetric":
        return "one shared policy"
    if config.groups == "independent":
        return "one policy per agent"
    return f"{config.groups} groups"


def _summary(saved: SavedRun) -> list[str]:
    evaluation = saved.evaluation
    if evaluation is None:
        return [
            f'<p class="lead">This run is not finished: {len(saved.rows)} of '
            f"{saved.config.num_epochs} epochs are done, and nothing is certified for the end "
            "yet.</p>"
        ]
    iterate = saved.config.iterate
    policy, uniform = evaluation.policies[iterate], evaluation.policies["uniform"]
    cards = html_page.cards(
        (
            (_interval(policy.maximum), "largest exploitability over the agents"),
            (_interval(policy.mean), "mean exploitability over the agents"),
            (f"{policy.mean_return:.3f}", "mean return of an agent"),
            (str(evaluation.epoch), "epochs of policy mirror descent"),
        )
    )
    stale = (
        ""
        if evaluation.epoch == saved.config.num_epochs
        else f"<p>The run was extended to {saved.config.num_epochs} epochs and is not finished; "
        f"the certificates are those after epoch {evaluation.epoch}.</p>"
    )
    return [
        cards,
        f'<p class="lead">{escape(_meaning(evaluation, policy, uniform, iterate))}</p>',
        stale,
        _policy_table(evaluation),
        f'<p class="note">{escape(_method_note(evaluation, policy))}</p>',
    ]


def _meaning(
    evaluation: Evaluation, policy: PolicyEvaluation, uniform: PolicyEvaluation, iterate: str
) -> str:
    share = policy.maximum.upper / uniform.maximum.upper if uniform.maximum.upper > 0 else 1.0
    text = (
        f"If all {evaluation.num_agents} agents play the {POLICY_NAMES[iterate]}, no single "
        f"agent can raise its expected total reward over the {evaluation.horizon} steps by more "
        f"than {policy.maximum.upper:.3f} by deviating alone, and at least one can gain "
        f"{max(policy.maximum.lower, 0.0):.3f}: the policy is an approximate Nash equilibrium "
        f"with that error. "
    )
    if _is_exact(policy):
        return text + (
            f"The average agent could gain {policy.mean.upper:.3f}. These values are exact. For "
            f"scale: when everyone acts uniformly at random, the largest gain is "
            f"{uniform.maximum.upper:.3f}; the learned policy leaves {share:.0%} of that."
        )
    return text + (
        f"The average agent could gain between {policy.mean.lower:.3f} and "
        f"{policy.mean.upper:.3f}. Each interval holds with {policy.confidence:.0%} confidence, "
        "for deviations that are judged while the others' behaviour is held fixed (see below). "
        f"For scale: when everyone acts uniformly at random, the largest gain lies between "
        f"{uniform.maximum.lower:.3f} and {uniform.maximum.upper:.3f}, so the learned policy's "
        f"upper bound is {share:.0%} of that."
    )


def _is_exact(policy: PolicyEvaluation) -> bool:
    return policy.method != "paths"


def _method_note(evaluation: Evaluation, policy: PolicyEvaluation) -> str:
    count = len(policy.agents)
    if _is_exact(policy):
        return (
            f"Certificate: method “{policy.method}”, exact for all {count} agents, "
            f"{evaluation.seconds:.1f} s."
        )
    text = (
        f"Certificate: method “{policy.method}”, {evaluation.num_trajectories} planning and "
        f"as many evaluation paths of the population, {count} agents, {evaluation.seconds:.1f} s. "
        "A path is held fixed while an agent deviates from it."
    )
    own = policy.own_influence
    if own is not None and len(own.agents):
        worst = int(np.argmax(np.abs(own.difference)))
        text += (
            f" What that leaves out, the deviator's own influence on the others, was measured by "
            f"playing the deviations of the {len(own.agents)} agents with the largest gains: it "
            f"changes a gain by at most {own.difference[worst]:+.4f} (standard error "
            f"{own.standard_error[worst]:.4f}). It is neither added to nor subtracted from the "
            "intervals."
        )
    return text


def _interval(interval: Any) -> str:
    return f"{interval.lower:.3f}&thinsp;–&thinsp;{interval.upper:.3f}"


def _policy_table(evaluation: Evaluation) -> str:
    rows = [
        (
            escape(name),
            _interval(policy.maximum),
            _interval(policy.mean),
            f"{float(np.median(policy.lower)):.3f}&thinsp;–&thinsp;"
            f"{float(np.median(policy.upper)):.3f}",
            f"{policy.mean_return:.3f}",
        )
        for name, policy in (
            (title, evaluation.policies[name]) for name, title in POLICY_NAMES.items()
        )
    ]
    heads = ("policy", "largest exploitability", "mean", "median agent (estimates)", "mean return")
    return html_page.table(heads, rows)


def _metrics_table(saved: SavedRun) -> str:
    rows = saved.certified_rows
    if len(rows) > _MAX_TABLE_ROWS:
        chosen = np.linspace(0, len(rows) - 1, _MAX_TABLE_ROWS).round().astype(int)
        rows = tuple(rows[index] for index in chosen)
    cells = [
        (
            str(row["epoch"]),
            *(
                f"{row[f'exploitability_{name}_lower']:.3f}&thinsp;–&thinsp;"
                f"{row[f'exploitability_{name}_upper']:.3f}"
                for name in ("max", "mean")
            ),
            f"{row['mean_return']:.3f}",
        )
        for row in rows
    ]
    return html_page.table(("epoch", "largest exploitability", "mean", "mean return"), cells)
