"""How far a game is from symmetric (Defs. 7, 8, 10) and what that costs (Theorem 1)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
