"""Play of N agents in bounded memory."""
