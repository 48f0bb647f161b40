"""What a training has spent by its checks: the last of them is what the record holds."""

import numpy as np
import pytest

from nodecore.evidence import store
from nodecore.evidence.catalogue import get_study
from nodecore.evidence.found import find
from nodecore.evidence.runs import Run
from nodecore.evidence.spending import evaluations_by_check
from nodecore.ode.steps import FixedSteps
from nodecore.training.adapted import Adapted

STUDIES = ("spheres2-adaption", "landscape-adaption")
COMMITTED = [
    e for study in STUDIES for run in get_study(study) if (e := find(run, store.COMMITTED))
]


@pytest.mark.parametrize(
    "found", COMMITTED, ids=lambda found: f"{found.run.study}/{found.run.name}"
)
def test_all_that_was_counted_in_training_is_found_in_the_history(found):
    checks = found.history.loc[found.history["failed"].notna()].astype({"failed": bool})
    recorded = found.records.groupby("seed")["nfe_per_iteration"].first()
    for seed, rows in checks.groupby("seed"):
        spent = evaluations_by_check(found.run, rows)
        assert (np.diff(spent) > 0).all()
        iterations = found.run.protocol.iterations
        assert rows["iteration"].iloc[-1] == iterations
        assert spent[-1] / iterations == pytest.approx(recorded[seed], rel=1e-12)


def test_a_training_that_is_not_counted_by_its_checks_is_refused():
    for steps in (FixedSteps("euler", 8), Adapted("dopri5", "algorithm1")):
        with pytest.raises(ValueError, match="give a run that adapts h alone"):
            evaluations_by_check(Run("spheres2", steps), COMMITTED[0].history)
