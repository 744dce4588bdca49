"""Mean-field games (Defs. 3 to 6, 9): the induced game, flows, exact values and solvers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
