"""What an agent does: tables and networks, and what a policy is told of whom it acts for."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
