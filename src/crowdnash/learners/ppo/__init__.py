"""Proximal policy optimisation with identity-conditioned networks."""
