"""What a finished run puts into the table of its grid."""

from __future__ import annotations

from crowdnash.interval import Interval
from crowdnash.runs.directory import RunDirectory
from crowdnash.runs.epochs import EVALUATION_COLUMNS
from crowdnash.runs.evaluation import Evaluation
from crowdnash.runs.metrics_log import Row, read_metrics

_COUNTED = ("epoch", "seconds", "agent_steps", *EVALUATION_COLUMNS)


def cell_figures(directory: RunDirectory) -> Row:
    """The figures of a run, all of which its settings decide: no times.

    The certificate and returns are those of the recommended policy. `agent_steps` are of all
    epochs; figures of the learner's, and of the game's own while it learned, are of the last epoch
    and begin with "last_".

    Raises:
        ValueError: a file is missing or damaged.
    """
    evaluation, metrics = Evaluation.load(directory), read_metrics(directory.metrics_jsonl)
    policy = evaluation.policies[evaluation.recommended]
    row: Row = {"policy": evaluation.recommended, "epochs": evaluation.epoch}
    row["agent_steps"] = sum(int(one.get("agent_steps") or 0) for one in metrics)
    certificate = policy.exploitability
    if certificate is not None:
        row |= _ends("exploitability_max", certificate.maximum)
        row |= _ends("exploitability_mean", certificate.mean)
        if certificate.frozen is not None:
            row |= _ends("frozen_max", certificate.frozen.maximum)
            row |= _ends("frozen_mean", certificate.frozen.mean)
    row |= _ends("mean_return", policy.mean_return)
    row |= policy.statistics
    last = metrics[-1] if metrics else {}
    return row | {
        f"last_{name}": value
        for name, value in last.items()
        if name not in _COUNTED and not name.endswith("seconds")
    }


def cell_seconds(directory: RunDirectory) -> Row:
    """What a run took: its metrics' columns of seconds, summed, and the evaluation at its end.

    Raises:
        ValueError: a file is missing or damaged.
    """
    row: Row = {}
    for one in read_metrics(directory.metrics_jsonl):
        for name, value in one.items():
            if name.endswith("seconds") and isinstance(value, int | float):
                row[name] = float(row.get(name) or 0.0) + value
    return row | {"last_evaluation_seconds": Evaluation.load(directory).seconds}


def _ends(name: str, interval: Interval) -> Row:
    return {f"{name}_lower": float(interval.lower), f"{name}_upper": float(interval.upper)}
