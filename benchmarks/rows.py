"""A row of the results: always the same columns, None where one does not apply.

left_out: why a thing is not measured here; refused: what a peer computes otherwise than we.
"""

COLUMNS = (
    *("ms", "ms_min", "ms_max", "rounds", "nfe", "gflops", "share_of_peak"),
    *("times_ours", "compile_s", "ratio", "peak_memory_mb", "seconds", "left_out", "refused"),
)


def make_row(case: str, engine: str, **values) -> dict:
    """ValueError for a column that there is not."""
    if unknown := set(values) - set(COLUMNS):
        raise ValueError(f"columns {sorted(unknown)} are unknown; choose from {COLUMNS}")
    return {"case": case, "engine": engine} | dict.fromkeys(COLUMNS) | values
