"""The fused CPU kernel: whole Runge-Kutta solves of many members, forward and backward.

`solve_fused` equals a plain torch solve to float32 rounding and is several times faster. The C++
source (`fused.cpp`) is compiled on first use; `status` says whether that worked.
"""

from nodecore.kernels.fused import BlockLayer, FusedSolve, classify_fused, solve_fused
from nodecore.kernels.selfcheck import KernelStatus, status

__all__ = ["BlockLayer", "FusedSolve", "KernelStatus", "classify_fused", "solve_fused", "status"]
