"""The page of a report: HTML from what a run saved; it needs no other file and no network."""

from __future__ import annotations

from html import escape

import numpy as np

from crowdnash.certificates.result import Exploitability
from crowdnash.interval import Interval
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.reports import html as html_page
from crowdnash.reports.agent_table import AgentGains
from crowdnash.reports.html import Picture, interval, number
from crowdnash.runs.config import RunConfig
from crowdnash.runs.evaluation import Evaluation, PolicyEvaluation, policy_title
from crowdnash.runs.game_record import ExactSymmetry
from crowdnash.runs.metrics_log import Row
from crowdnash.runs.saved_run import SavedRun

_MAX_TABLE_ROWS = 40
_ENDS = ("lower", "upper")


def page(saved: SavedRun, drawn: list[tuple[Picture, bytes]]) -> str:
    """Return the page of a run, with its pictures and their SVG files inside."""
    config = saved.config
    title = f"{config.game}: {_players(config)}, {config.learner.summary()}"
    gains = _agent_gains(saved)
    sections = [
        f"<h1>{escape(title)}</h1>",
        *_summary(saved),
        "<h2>Charts</h2>",
        *(html_page.figure(picture, svg) for picture, svg in drawn),
        *([] if gains is None else gains.section()),
    ]
    if saved.certified_rows:
        sections += ["<h2>Certificates along the way</h2>", _metrics_table(saved)]
    sections += ["<h2>Settings</h2>", html_page.settings_table(config.settings())]
    content = None if gains is None else gains.content()
    return html_page.document(title, sections, [picture for picture, _ in drawn], content)


def _agent_gains(saved: SavedRun) -> AgentGains | None:
    """The gains under the policy that the run is about."""
    if saved.evaluation is None:
        return None
    iterate = saved.evaluation.recommended
    policy = _certificate(saved.evaluation.policies[iterate])
    gains = {"lower": policy.lower, "upper": policy.upper, "standard_error": policy.standard_error}
    if _is_exact(policy):
        gains = {"gain": policy.upper}
    groups, learned = None, saved.policies[iterate]
    if isinstance(learned, TabularPolicy) and 1 < learned.num_groups < len(policy.agents):
        groups = np.asarray(learned.groups)
    return AgentGains.of(
        policy.agents,
        gains,
        saved.game_record.parameters,
        groups,
        f"Gains under the {policy_title(iterate)}",
    )


def _certificate(policy: PolicyEvaluation) -> Exploitability:
    """A tabular game's run certifies every policy."""
    assert policy.exploitability is not None
    return policy.exploitability


def _players(config: RunConfig) -> str:
    agents, horizon = (config.game_parameters.get(n) for n in ("num_agents", "horizon"))
    return f"{agents} agents, {horizon} steps"


def _summary(saved: SavedRun) -> list[str]:
    evaluation = saved.evaluation
    if evaluation is None:
        return [
            f'<p class="lead">This run is not finished: {len(saved.metrics)} of '
            f"{saved.config.num_epochs} epochs are done, and nothing is certified for the end "
            "yet.</p>"
        ]
    iterate = evaluation.recommended
    returns = evaluation.policies[iterate].mean_return
    policy, uniform = (_certificate(evaluation.policies[n]) for n in (iterate, "uniform"))
    symmetry = saved.game_record.symmetry
    alike = () if symmetry is None else _symmetry_cards(symmetry)
    cards = html_page.cards(
        (
            (interval(policy.maximum), "largest exploitability over the agents"),
            (interval(policy.mean), "mean exploitability over the agents"),
            *alike,
            (interval(returns), "mean return of an agent"),
            (str(evaluation.epoch), "epochs of learning"),
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
        f'<p class="lead">{escape(_meaning(evaluation, policy, iterate))}</p>',
        stale,
        f"<p>{escape(_scale(policy, uniform))}</p>",
        "" if symmetry is None else f"<p>{escape(_alike(symmetry))}</p>",
        _policy_table(evaluation),
        f'<p class="note">{escape(_method_note(evaluation, policy))}</p>',
    ]


def _symmetry_cards(symmetry: ExactSymmetry) -> tuple[tuple[str, str], ...]:
    return (
        (f"{symmetry.alpha:.3f}", "α: how far transitions differ between agents (L1, 0 to 2)"),
        (f"{symmetry.beta:.3f}", "β: how far rewards differ between agents (per step)"),
    )


def _alike(symmetry: ExactSymmetry) -> str:
    low, high = symmetry.reward_range
    return (
        "How alike the agents are: in the same state, with the same action and the same crowd, no "
        f"agent's next-state probabilities are farther than α = {symmetry.alpha:.3f} (in L1) from "
        f"the average agent's, and no agent's reward farther than β = {symmetry.beta:.3f}, where "
        f"rewards of a step range from {number(low)} to {number(high)}. Both are exact."
    )


def _meaning(evaluation: Evaluation, policy: Exploitability, iterate: str) -> str:
    text = (
        f"If all {evaluation.num_agents} agents play the {policy_title(iterate)}, no single "
        f"agent can raise its expected total reward over the {evaluation.horizon} steps by more "
        f"than {policy.maximum.upper:.3f} by deviating alone, and at least one can gain "
        f"{max(policy.maximum.lower, 0.0):.3f}: the policy is an approximate Nash equilibrium "
        "with that error. "
    )
    if _is_exact(policy):
        return text + f"The average agent could gain {policy.mean.upper:.3f}."
    return text + (
        f"The average agent could gain between {number(policy.mean.lower)} and "
        f"{number(policy.mean.upper)}."
    )


def _scale(policy: Exploitability, uniform: Exploitability) -> str:
    share = policy.maximum.upper / uniform.maximum.upper if uniform.maximum.upper > 0 else 1.0
    if _is_exact(policy):
        return (
            "These values are exact. For scale: when everyone acts uniformly at random, the "
            f"largest gain is {uniform.maximum.upper:.3f}; the learned policy leaves {share:.0%} "
            "of that."
        )
    return (
        f"Each interval holds with {policy.confidence:.0%} confidence, for deviations that are "
        "judged while the others' behaviour is held fixed (see below). For scale: when everyone "
        f"acts uniformly at random, the largest gain lies between {uniform.maximum.lower:.3f} and "
        f"{uniform.maximum.upper:.3f}, so the learned policy's upper bound is {share:.0%} of that."
    )


def _is_exact(policy: Exploitability) -> bool:
    return policy.method != "paths"


def _method_note(evaluation: Evaluation, policy: Exploitability) -> str:
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
        change = f"{own.difference[worst]:+.4f}".replace("-", "−")
        text += (
            f" What that leaves out, the deviator's own influence on the others, was measured by "
            f"playing the deviations of the {len(own.agents)} agents with the largest gains: it "
            f"changes a gain by at most {change} (standard error "
            f"{own.standard_error[worst]:.4f}). It is neither added to nor subtracted from the "
            "intervals."
        )
    return text


def _policy_table(evaluation: Evaluation) -> str:
    rows = [
        (
            escape(policy_title(name)),
            interval(gains.maximum),
            interval(gains.mean),
            interval(Interval(float(np.median(gains.lower)), float(np.median(gains.upper)))),
            interval(policy.mean_return),
        )
        for name, policy in evaluation.policies.items()
        for gains in (_certificate(policy),)
    ]
    heads = ("policy", "largest exploitability", "mean", "median agent (estimates)", "mean return")
    return html_page.table(heads, rows, name="exploitability by policy", numeric=True)


def _metrics_table(saved: SavedRun) -> str:
    rows = saved.certified_rows
    if len(rows) > _MAX_TABLE_ROWS:
        chosen = np.linspace(0, len(rows) - 1, _MAX_TABLE_ROWS).round().astype(int)
        rows = tuple(rows[index] for index in chosen)
    cells = [
        (
            str(row["epoch"]),
            *(
                interval(Interval(*(_number(row, f"exploitability_{name}_{end}") for end in _ENDS)))
                for name in ("max", "mean")
            ),
            number(_number(row, "mean_return")),
        )
        for row in rows
    ]
    heads = ("epoch", "largest exploitability", "mean", "mean return")
    return html_page.table(heads, cells, name="certificates by epoch", numeric=True)


def _number(row: Row, name: str) -> float:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else np.nan
