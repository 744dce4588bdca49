"""Real cases: games with data, solved, certified and judged by equilibria of others."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
