"""An experiment: config, run directory, checkpoints, evaluation."""
