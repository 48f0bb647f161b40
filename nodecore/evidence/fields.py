"""The fields of a run's file: which there must be, and what their values may be."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from nodecore.ode.steps import choose_steps


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53


def _is_whole(value):
    return _is_number(value) and isinstance(value, int) and value >= 0


def _is_test(value):
    names = "torch", "device", "backend"
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in names)


def _text(pattern):
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


KINDS = {
    "text": lambda value: isinstance(value, str),
    "true or false": lambda value: isinstance(value, bool),
    "a mapping": lambda value: isinstance(value, dict),
    "a finite number": _is_number,
    "a number > 0": lambda value: _is_number(value) and value > 0,
    "a whole number >= 0": _is_whole,
    "a whole number >= 1": lambda value: _is_whole(value) and value > 0,
    "a share from 0 to 1": lambda value: _is_number(value) and 0 <= value <= 1,
    "whole numbers >= 0": lambda value: (
        isinstance(value, list) and len(value) > 0 and all(map(_is_whole, value))
    ),
    "a mapping with a number T": lambda value: (
        isinstance(value, dict) and _is_number(value.get("T"))
    ),
    "'ok' or 'diverged at' an iteration": _text(r"ok|diverged at [1-9]\d{0,8}"),
    "'first' or 'all' test images": _text(r"first \d{1,9}|all \d{1,9}(, \d{1,9} of them lossy)?"),
    "a list of tests, each with torch, device and backend": lambda value: (
        isinstance(value, list) and all(map(_is_test, value))
    ),
}

# By kind. What is optional may be missing or null.
HEADER = {
    "text": "study dataset profile train_solver protocol_hash backend device torch weights_sha256",
    "a finite number": "seconds",
    "whole numbers >= 0": "seeds",
    "a mapping with a number T": "protocol",
}
OPTIONAL_HEADER = {
    "text": "controller start cures changes revision history_sha256",
    "true or false": "per_sample",
    "a whole number >= 1": "n_steps",
    "a number > 0": "rtol first_rtol",
    "a mapping": "controller_constants start_constants",
    "a list of tests, each with torch, device and backend": "tested",
}
RECORD = {
    "text": "test_solver",
    "true or false": "trained",
    "a whole number >= 0": "seed",
    "a finite number": "nfe_per_iteration",
    "a share from 0 to 1": "accuracy train_accuracy",
    "'ok' or 'diverged at' an iteration": "status",
}
OPTIONAL_RECORD = {
    "'first' or 'all' test images": "test_split test_split_all",
    "a whole number >= 1": "test_n_steps final_n_steps",
    "a number > 0": "test_rtol final_rtol",
    "a whole number >= 0": "reversals failed_checks",
    "a finite number": "spread",
    "a share from 0 to 1": "accuracy_all agreement_gap",
}


def problems(header: Mapping, records: Any) -> Iterator[str]:
    """Say what is wrong with the header and the records of a run: the field, and its value."""
    yield from _wrong("its header", header, HEADER, OPTIONAL_HEADER)
    if header.get("start") is not None and header.get("controller") is None:
        yield f"start of its header = {_short(header['start'])}: it has no controller that starts"
    if not isinstance(records, list) or not records:
        yield f"records = {_short(records)}: expected a non-empty list"
        return
    known = set(" ".join([*RECORD.values(), *OPTIONAL_RECORD.values()]).split())
    for number, record in enumerate(records, 1):
        where = f"its record {number}"
        if not isinstance(record, dict) or not record.keys() <= known:
            yield f"{where} = {_short(record)}: it is not a record, or has unknown fields"
            return
        yield from _wrong(where, record, RECORD, OPTIONAL_RECORD)
        try:
            choose_steps(*key_of(record)[1:])
        except ValueError as error:
            yield f"{where} describes no valid test ({error})"
        final = "final_n_steps" if header.get("first_rtol") is None else "final_rtol"
        if header.get("controller") is not None and record.get(final) is None:
            yield f"{where} has no {final}"
    tests = {key_of(record) for record in records}
    if {seed for seed, *_ in tests} != set(header["seeds"]):
        yield f"its records do not cover exactly its seeds {_short(header['seeds'])}"
    if len(tests) < len(records):
        yield "it has several records of one seed and test"


def key_of(record: Mapping) -> tuple:
    """The seed and the test setting of a record: solver, steps, tolerance."""
    names = ("seed", "test_solver", "test_n_steps", "test_rtol")
    return tuple(record.get(name) for name in names)


def _wrong(where, values, needed, optional):
    for fields, may_lack in ((needed, False), (optional, True)):
        for kind, names in fields.items():
            for name in names.split():
                value = values.get(name)
                if may_lack and value is None:
                    continue
                if name not in values:
                    yield f"{where} has no {name}"
                elif not KINDS[kind](value):
                    yield f"{name} of {where} = {_short(value)}: it is not {kind}"


def _short(value):
    """A value as text, cut short; a number of thousands of digits has none."""
    try:
        text = repr(value)
    except ValueError:
        text = "a huge number"
    return text if len(text) <= 80 else f"{text[:77]}..."
