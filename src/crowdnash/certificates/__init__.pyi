from .certificate import exploitability as exploitability
from .result import Exploitability as Exploitability
from .result import OwnInfluence as OwnInfluence
