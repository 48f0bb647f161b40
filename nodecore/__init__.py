"""Neural ODEs under every solver and step size; check your own model with `nodecore.check_flow`.

Names are imported on first use, so that `import nodecore` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nodecore.check.check_flow import FlowReport, check_flow, flow_cost
    from nodecore.check.monitor import monitor
    from nodecore.check.suggest import suggest_steps

_PLACES = {
    "FlowReport": "check_flow",
    "check_flow": "check_flow",
    "flow_cost": "check_flow",
    "monitor": "monitor",
    "suggest_steps": "suggest",
}
__all__ = ["FlowReport", "check_flow", "flow_cost", "monitor", "suggest_steps"]


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module 'nodecore' has no attribute {name!r}")
    return getattr(import_module(f"nodecore.check.{_PLACES[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})
