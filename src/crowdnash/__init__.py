"""crowdnash: Nash equilibria for crowds.

Public names are imported when they are first used; `__init__.pyi` says where each one lives.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.2.0"
