"""Play of N agents in bounded memory, and the statistics of it that learners need."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
