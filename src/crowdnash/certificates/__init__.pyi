from .certificate import exploitability as exploitability
from .result import Exploitability as Exploitability
from .result import OwnInfluence as OwnInfluence
from .target import Target as Target
from .target import solve as solve
