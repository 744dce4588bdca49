from .certificate import exploitability as exploitability
from .origin import Origin as Origin
from .result import Exploitability as Exploitability
from .result import FrozenGains as FrozenGains
from .result import Influence as Influence
from .result import OwnInfluence as OwnInfluence
from .target import Target as Target
from .target import solve as solve
