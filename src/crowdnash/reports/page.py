"""The page of a report: HTML from what a run saved; it needs no other file and no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from crowdnash import games
from crowdnash.certificates.result import Exploitability
from crowdnash.interval import Interval
from crowdnash.policies.tabular import TabularPolicy
from crowdnash.reports import html as html_page
from crowdnash.reports.agent_table import AgentGains
from crowdnash.reports.chart import Picture
from crowdnash.reports.html import interval, number
from crowdnash.reports.pictures import column
from crowdnash.runs.evaluation import Evaluation, PolicyEvaluation, policy_title
from crowdnash.runs.game_record import ExactSymmetry
from crowdnash.runs.saved_run import SavedRun

_MAX_TABLE_ROWS = 40
_ANIMATION = "One episode of the trained fleet, a dot for each taxi."


def page(
    saved: SavedRun, drawn: Sequence[tuple[Picture, bytes]], animation: bytes | None = None
) -> str:
    """Return the page of a run.

    Args:
        saved: the run.
        drawn: its pictures and their SVG files, which go into the page.
        animation: a GIF of an episode, or None.
    """
    gains = _agent_gains(saved)
    moving = "" if animation is None else html_page.image(_ANIMATION, animation, "image/gif")
    sections = [
        *_head(saved),
        *_summary(saved),
        "<h2>Charts</h2>",
        *(html_page.figure(picture, svg) for picture, svg in drawn),
        moving,
        *([] if gains is None else gains.section()),
        *_certificates_by_epoch(saved),
        "<h2>Settings</h2>",
        html_page.settings_table(saved.config.settings()),
    ]
    content = None if gains is None else gains.content()
    pictures = [picture for picture, _ in drawn]
    return html_page.document(_title(saved), sections, pictures, content)


def _title(saved: SavedRun) -> str:
    return games.lookup(saved.config.game).summary or saved.config.game


def _head(saved: SavedRun) -> list[str]:
    parameters = saved.config.game_parameters
    sizes = [
        f"{parameters[name]} {words}"
        for name, words in (("num_agents", "agents"), ("horizon", "steps"))
        if name in parameters
    ]
    about = ", ".join([saved.config.game, *sizes, saved.config.learner.summary()])
    return [f"<h1>{escape(_title(saved))}</h1>", f'<p class="about">{escape(about)}</p>']


def _agent_gains(saved: SavedRun) -> AgentGains | None:
    """The gains under the policy that is recommended, where they were measured."""
    if saved.evaluation is None:
        return None
    name, policy = next(iter(saved.evaluation.policies.items()))
    certificate = policy.exploitability
    if certificate is None:
        return None
    if _is_exact(certificate):
        gains = {"gain": certificate.upper}
    elif _is_one_sided(certificate):
        gains = {
            "gain": certificate.lower,
            "standard_error": certificate.standard_error,
            "value": certificate.value,
        }
    else:
        names = ("lower", "upper", "standard_error")
        gains = {name: getattr(certificate, name) for name in names}
    title = f"Gains under the {policy_title(name)}"
    if _is_one_sided(certificate):
        title = "Gains of learned deviations"
    groups, learned = None, saved.policies.get(name)
    if isinstance(learned, TabularPolicy) and 1 < learned.num_groups < learned.num_agents:
        groups = np.asarray(learned.groups)
    parameters = saved.game_record.parameters
    return AgentGains.of(certificate.agents, gains, parameters, groups, title)


def _summary(saved: SavedRun) -> list[str]:
    evaluation, num_epochs = saved.evaluation, saved.config.num_epochs
    if evaluation is None:
        return [
            f'<p class="lead">This run is not finished: {len(saved.metrics)} of {num_epochs} '
            "epochs are done, and nothing is certified for the end yet.</p>"
        ]
    name, policy = next(iter(evaluation.policies.items()))
    certificate, symmetry = policy.exploitability, saved.game_record.symmetry
    paragraphs = [] if certificate is None else [_scale(certificate, evaluation)]
    paragraphs += [] if symmetry is None else [_alike(symmetry)]
    stale = (
        f"The run was extended to {num_epochs} epochs and is not finished; the certificates are "
        f"those after epoch {evaluation.epoch}."
    )
    return [
        f'<p class="lead">{escape(_meaning(evaluation, name, policy))}</p>',
        f"<p>{stale}</p>" if evaluation.epoch != num_epochs else "",
        html_page.cards(_cards(evaluation, policy, symmetry)),
        *(f"<p>{escape(text)}</p>" for text in paragraphs),
        _policy_table(evaluation) if len(evaluation.policies) > 1 else "",
        _welfare(evaluation, policy),
        _not_measured(saved) if certificate is None else _method_note(certificate, evaluation),
    ]


def _cards(
    evaluation: Evaluation, policy: PolicyEvaluation, symmetry: ExactSymmetry | None
) -> list[tuple[str, str]]:
    cards = []
    if (certificate := policy.exploitability) is not None:
        cards = [
            (_bounds(certificate.maximum), "largest exploitability over the agents"),
            (_bounds(certificate.mean), "mean exploitability over the agents"),
        ]
    if symmetry is not None:
        cards += [
            (number(symmetry.alpha), "α: how far transitions differ between agents (L1, 0 to 2)"),
            (number(symmetry.beta), "β: how far rewards differ between agents (per step)"),
        ]
    figures = [(number(x), name.replace("_", " ")) for name, x in policy.statistics.items()]
    returns = (interval(policy.mean_return), "mean return of an agent")
    return [*cards, returns, *figures, (str(evaluation.epoch), "epochs of learning")]


def _meaning(evaluation: Evaluation, name: str, policy: PolicyEvaluation) -> str:
    played = (
        f"If all {evaluation.num_agents} agents play the learned policy ({policy_title(name)}), "
    )
    certificate = policy.exploitability
    if certificate is None:
        low, high = (number(end) for end in policy.mean_return)
        return played + (
            f"the average agent's total reward over {evaluation.horizon} steps lies between {low} "
            f"and {high}. Whether this is near a Nash equilibrium was not measured."
        )
    if _is_one_sided(certificate):
        count = len(certificate.agents)
        return played + (
            f"single agents can still gain by deviating: of {count} that learned to, while all "
            "others went on as before, the one picked beforehand gains at least "
            f"{number(certificate.maximum.lower)} in total reward over {evaluation.horizon} steps, "
            f"and the {count} of them at least {number(certificate.mean.lower)} on average. "
            "Samples give no upper bound: another deviation may gain more."
        )
    text = played + (
        f"no single agent can raise its expected total reward over the {evaluation.horizon} steps "
        f"by more than {number(certificate.maximum.upper)} by deviating alone, and at least one "
        f"can gain {number(max(certificate.maximum.lower, 0.0))}: the policy is an approximate "
        "Nash equilibrium with that error. "
    )
    if _is_exact(certificate):
        return text + f"The average agent could gain {number(certificate.mean.upper)}."
    low, high = (number(end) for end in certificate.mean)
    return text + f"The average agent could gain between {low} and {high}."


def _scale(certificate: Exploitability, evaluation: Evaluation) -> str:
    uniform = evaluation.policies.get("uniform")
    reference = None if uniform is None else uniform.exploitability
    text = (
        "These values are exact."
        if _is_exact(certificate)
        else f"Each interval holds with {certificate.confidence:.0%} confidence"
        + ", for deviations of one agent while all others keep to the policy (see below)"
        * (certificate.method == "paths")
        + "."
    )
    if reference is None or _is_one_sided(certificate):
        return text
    low, high = (number(end) for end in reference.maximum)
    gain = f"is {high}" if _is_exact(reference) else f"lies between {low} and {high}"
    largest = reference.maximum.upper
    share = certificate.maximum.upper / largest if largest > 0 else 1.0
    return text + (
        f" For scale: when everyone acts uniformly at random, the largest gain {gain}; the learned "
        f"policy leaves {'' if _is_exact(certificate) else 'at most '}{share:.0%} of that."
    )


def _alike(symmetry: ExactSymmetry) -> str:
    low, high = symmetry.reward_range
    return (
        "How alike the agents are: in the same state, with the same action and the same crowd, no "
        f"agent's next-state probabilities are farther than α = {number(symmetry.alpha)} (in L1) "
        "from the average agent's, and no agent's reward farther than "
        f"β = {number(symmetry.beta)}, where rewards of a step range from {number(low)} to "
        f"{number(high)}. Both are exact."
    )


def _welfare(evaluation: Evaluation, policy: PolicyEvaluation) -> str:
    """Why an equilibrium may pay less than play at random, if it does."""
    uniform = evaluation.policies.get("uniform")
    if uniform is None or sum(policy.mean_return) >= sum(uniform.mean_return):
        return ""
    return (
        '<p id="welfare">The learned policy pays an agent less on average than the uniform policy '
        f"does: {interval(policy.mean_return)} against {interval(uniform.mean_return)}. That is no "
        "fault. In an equilibrium nobody gains by deviating alone; it does not make all better "
        "off, and agents who look after themselves often pay for it together.</p>"
    )


def _is_exact(certificate: Exploitability) -> bool:
    return certificate.method not in ("paths", "learned")


def _is_one_sided(certificate: Exploitability) -> bool:
    return bool(np.isinf(certificate.maximum.upper))


def _bounds(ends: Interval) -> str:
    return f"≥ {number(ends.lower)}" if np.isinf(ends.upper) else interval(ends)


def _not_measured(saved: SavedRun) -> str:
    cost = saved.evaluation and saved.evaluation.lower_bound_cost
    text = cost.advice(saved.directory.path) if cost else ""
    return f'<p class="note">{escape(text)}</p>' if text else ""


def _method_note(certificate: Exploitability, evaluation: Evaluation) -> str:
    method, count, seconds = certificate.method, len(certificate.agents), evaluation.seconds
    text = f"Certificate: method “{method}”, "
    if _is_exact(certificate):
        text += f"exact for all {count} agents, {seconds:.1f} s."
    elif method == "learned":
        text += f"{count} agents, {certificate.num_trajectories} plays, {seconds:.1f} s."
    else:
        if certificate.origin is not None and certificate.origin.sampled_agents:
            text += (
                f"the mean is about all {evaluation.num_agents} agents, from "
                f"{certificate.origin.sampled_agents} random ones; "
            )
        text += (
            f"{certificate.num_trajectories} planning and as many evaluation paths of the "
            f"population, {count} agents, {seconds:.1f} s. {certificate.statement}"
        )
    own = certificate.own_influence
    if own is not None and len(own.agents):
        worst = int(np.argmax(np.abs(own.difference)))
        change = f"{own.difference[worst]:+.4f}".replace("-", "−")
        text += (
            f" Best responses to frozen paths were really played by the {len(own.agents)} most "
            f"promising agents: that the others feel them changes a gain by at most {change} "
            f"(standard error {own.standard_error[worst]:.4f})."
        )
    return f'<p class="note">{escape(text)}</p>'


def _policy_table(evaluation: Evaluation) -> str:
    rows = []
    for name, policy in evaluation.policies.items():
        cells = ["–"] * 3
        if (certificate := policy.exploitability) is not None:
            ends = (float(np.median(certificate.lower)), float(np.median(certificate.upper)))
            cells = [_bounds(i) for i in (certificate.maximum, certificate.mean, Interval(*ends))]
        rows.append((escape(policy_title(name)), *cells, interval(policy.mean_return)))
    heads = ("policy", "largest exploitability", "mean", "median agent (estimates)", "mean return")
    return html_page.table(heads, rows, name="exploitability by policy", numeric=True)


def _certificates_by_epoch(saved: SavedRun) -> list[str]:
    rows = saved.certified_rows
    if not rows:
        return []
    if len(rows) > _MAX_TABLE_ROWS:
        chosen = np.linspace(0, len(rows) - 1, _MAX_TABLE_ROWS).round().astype(int)
        rows = tuple(rows[index] for index in chosen)

    def ends(name: str) -> list[Interval]:
        lower, upper = (column(rows, f"exploitability_{name}_{e}") for e in ("lower", "upper"))
        return [Interval(*pair) for pair in zip(lower, upper, strict=True)]

    cells = [
        (str(row["epoch"]), interval(maximum), interval(mean), number(returns))
        for row, maximum, mean, returns in zip(
            rows, ends("max"), ends("mean"), column(rows, "mean_return"), strict=True
        )
    ]
    heads = ("epoch", "largest exploitability", "mean", "mean return")
    table = html_page.table(heads, cells, name="certificates by epoch", numeric=True)
    return ["<h2>Certificates along the way</h2>", table]
