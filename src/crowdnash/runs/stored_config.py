"""The settings of a stored run, whatever its learner."""

from __future__ import annotations

from crowdnash.runs.config import stored_settings
from crowdnash.runs.directory import RunDirectory, config_text
from crowdnash.runs.experiment_config import ExperimentConfig
from crowdnash.runs.ppo_config import PPOConfig


def read_config(directory: RunDirectory) -> ExperimentConfig | PPOConfig:
    """Read the config.json of a run.

    Raises:
        ValueError: it is damaged, or of a learner that there is not.
    """
    text, source = config_text(directory), str(directory.config)
    learner = stored_settings(text, source)["learner"]
    for config_class in (ExperimentConfig, PPOConfig):
        if config_class.learner_name == learner:
            return config_class.from_json(text, source)
    raise ValueError(f"{source}: no learner is called {learner!r}")
