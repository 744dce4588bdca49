from . import sioux_falls as sioux_falls
from .routes import Judgement as Judgement
from .routes import judge as judge
from .routes import learn_routes as learn_routes
from .routes import link_flows as link_flows
from .routes import solve_routes as solve_routes
