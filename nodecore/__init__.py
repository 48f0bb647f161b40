"""Neural ODEs under every solver and step size; `nodecore.check_flow` is for a model of your own.

A name is imported when it is first asked for, so that its modules alone need torch.
"""

from importlib import import_module

__all__ = ["FlowReport", "check_flow", "flow_cost"]


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module 'nodecore' has no attribute {name!r}")
    return getattr(import_module("nodecore.check.check_flow"), name)
