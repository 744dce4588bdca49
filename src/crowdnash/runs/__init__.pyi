from .config import RunConfig as RunConfig
from .directory import RunDirectory as RunDirectory
from .evaluation import Evaluation as Evaluation
from .evaluation import PolicyEvaluation as PolicyEvaluation
from .metrics_log import Row as Row
from .metrics_log import read_metrics as read_metrics
from .saved_run import SavedRun as SavedRun
