"""How far a game is from symmetric (Defs. 7, 8, 10) and what that costs (Theorem 1)."""
