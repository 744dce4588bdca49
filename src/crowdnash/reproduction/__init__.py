"""The paper's theorems and figures, measured again: a study each, by name.

`sweep.run` measures a study in a directory and can go on where it stopped; `sweep.draw` draws its
pictures from what was saved. `everything.run` does that for all studies.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
