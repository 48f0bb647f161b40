"""The fused CPU kernel: whole Runge-Kutta solves of many members, forward and backward.

`solve_fused` equals a plain torch solve to float32 rounding and is several times faster. The C++
source (`fused.cpp`) is compiled on first use; `status` says whether that worked.
"""

from nodecore.kernels.build import KernelStatus, status
from nodecore.kernels.fused import BlockLayer, solve_fused

__all__ = ["BlockLayer", "KernelStatus", "solve_fused", "status"]
