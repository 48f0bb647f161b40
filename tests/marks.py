"""What several tests need of the machine."""

import shutil

import pytest

from nodecore.ode.kernels import build

# Where there is a compiler the kernel has to build: a broken one is a failure, not a skip.
needs_kernel = pytest.mark.skipif(
    not any(map(shutil.which, build.COMPILERS)), reason="no C++ compiler on the PATH"
)
