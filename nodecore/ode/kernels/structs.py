"""The structs that the kernel takes, field by field as in its C++ headers."""

import ctypes

NUMBERS = (
    "members batch channels height width taps width1 width2 stages most_steps "
    "threads tape_steps keep_hidden adaptive per_sample w2_tap w2_in w2_out"
)
ARRAYS = "a b n_steps step_sizes w1 b1 w2 b2 w3 b3 z0 z1 tape"
GRADIENTS = "grad_z1 grad_z0 grad_w1 grad_b1 grad_w2 grad_b2 grad_w3 grad_b3"
CONTROL = "t0 t1 first_step exponent safety min_factor max_factor"
REPORT = "nfe rejected state time step"
CLASSIFIER = "z w b y loss grad_z grad_w grad_b"


def _fields(*groups):
    return tuple((name, kind) for names, kind in groups for name in names.split())


class Problem(ctypes.Structure):
    """`Problem` of problem.h: a solve."""

    _fields_ = _fields(
        (NUMBERS, ctypes.c_int64), (ARRAYS, ctypes.c_void_p), (GRADIENTS, ctypes.c_void_p)
    )


class Adaptive(ctypes.Structure):
    """`Adaptive` of problem.h: what an adaptive solve needs besides, and reports."""

    _fields_ = _fields(
        ("same_as_last", ctypes.c_int64),
        (CONTROL, ctypes.c_double),
        ("rtol atol b_error", ctypes.c_void_p),
        (REPORT, ctypes.c_void_p),
    )


class Classifier(ctypes.Structure):
    """`Classifier` of classifier.h: the linear classifier behind a solve."""

    _fields_ = _fields(("members batch dim classes", ctypes.c_int64), (CLASSIFIER, ctypes.c_void_p))


def differing(library: ctypes.CDLL) -> list[str]:
    """The names of those structs whose size in the library is another one."""
    structs = Problem, Adaptive, Classifier
    sizes = [ctypes.c_int64() for _ in structs]
    library.nodecore_sizes(*map(ctypes.byref, sizes))
    pairs = zip(structs, sizes, strict=True)
    return [s.__name__ for s, size in pairs if ctypes.sizeof(s) != size.value]
