"""The fused CPU kernel: whole Runge-Kutta solves of many members, forward and backward.

`solve_fused`, in given steps, and `solve_fused_adaptive`, in steps that follow an error estimate,
equal plain torch solves to float32 rounding and are several times faster. The C++
source (`cpp/`) is compiled on first use; `status` says whether that worked.
"""

from nodecore.ode.kernels.fused import (
    ENDS,
    BlockLayer,
    FusedAdaptive,
    FusedSolve,
    StepControl,
    classify_fused,
    solve_fused,
    solve_fused_adaptive,
)
from nodecore.ode.kernels.selfcheck import KernelStatus, status

# Rises where the kernel's arithmetic changes: results of another one differ by rounding.
# 1: products throughout. 2: convolutions of one channel through tables. 3: long walks of two
# numbers through cells.
VERSION = 3
FIRST_VERSION = 1  # of records that name none

__all__ = [
    "ENDS",
    "FIRST_VERSION",
    "VERSION",
    "BlockLayer",
    "FusedAdaptive",
    "FusedSolve",
    "KernelStatus",
    "StepControl",
    "classify_fused",
    "solve_fused",
    "solve_fused_adaptive",
    "status",
]
