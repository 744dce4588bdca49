from .kept_play import simulate as simulate
from .layout import AgentLayout as AgentLayout
from .layout import agent_layout as agent_layout
from .statistics import VisitStatistics as VisitStatistics
from .statistics import visit_statistics as visit_statistics
from .trajectories import Trajectories as Trajectories
