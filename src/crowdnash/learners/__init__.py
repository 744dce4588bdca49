"""Learners of approximate Nash policies from simulated play, and the driver they share."""
