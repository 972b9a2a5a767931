"""How long a dashboard takes to answer for a study of many trials.

    python benchmarks/dashboard_answers.py [--space einspace] [--trials 1000]

Records random architectures of a space with made-up scores and a curve of ten rows, opens the
dashboard on them, and prints the seconds of: opening it, the first page, the page again, what a page
asks every few seconds, a drawing; and of the first page without notes, by optuna-dashboard alone.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from wsgiref.util import setup_testing_defaults

from optuna.trial import TrialState, create_trial

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nas import registry, searching
from nas.configuration import PartConfiguration, SearchConfiguration
from nas.dashboard import dashboard
from nas.problem import Objective
from nas.storage import open_storage
from nas.study import Budget
from nas.variation import sample

OBJECTIVES = (Objective("params", "minimize"), Objective("macs", "minimize"))
CURVE = [{"step": float(i), "accuracy": 10.0 * i, "loss": 1 / i} for i in range(1, 11)]


def record(space: str, trials: int, folder: Path) -> None:
    """A study `many` of so many trials; all but the first are written without an evaluation."""
    parts = (PartConfiguration(space), PartConfiguration("random"), (PartConfiguration("complexity"),))
    search = SearchConfiguration(*parts, objectives=OBJECTIVES)
    named = searching.named(search, Budget(trials=1), name="many", results=folder)
    searching.search(named, results=folder)
    storage, rng, made = (
        open_storage(named.storage),
        random.Random(0),
        registry.make("space", space, {}),
    )
    study_id = storage.get_study_id_from_name("many")
    for place in range(1, trials):
        text = str(sample(made, rng))
        values = [float(rng.randrange(10**6)), float(rng.randrange(10**7))]
        metrics = dict(zip(("params", "macs"), values, strict=True))
        result = {"metrics": metrics, "cost": 1.0, "seconds": 0.1, "curve": CURVE}
        attributes = {"architecture": text, "place": place, "evaluation": result}
        trial = create_trial(state=TrialState.COMPLETE, values=values, user_attrs=attributes)
        storage.create_new_trial(study_id, template_trial=trial)


def seconds(app, path: str) -> tuple[float, int]:
    """The seconds that an answer takes, and its bytes."""
    environ = {"REQUEST_METHOD": "GET"}
    environ["PATH_INFO"], _, environ["QUERY_STRING"] = path.partition("?")
    setup_testing_defaults(environ)
    began = time.perf_counter()
    body = b"".join(app(environ, lambda *said: None))
    return time.perf_counter() - began, len(body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--space", default="einspace")
    parser.add_argument("--trials", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record(given.space, given.trials, folder)
        began = time.perf_counter()
        app = dashboard(searching.stored("many", results=folder))
        print(f"{'opening':<30} {time.perf_counter() - began:8.3f} s")
        page = f"/api/studies/{app.study_id}"
        asked = {
            "first page": (app, f"{page}?after=0"),
            "the page again": (app, f"{page}?after=0"),
            "every few seconds": (app, f"{page}?after={given.trials}"),
            "a drawing": (app, f"/nasgram/trials/{given.trials - 1}/architecture.svg"),
            "first page, optuna-dashboard": (dashboard(app.configuration).inner, f"{page}?after=0"),
        }
        for what, (asked_of, path) in asked.items():
            took, size = seconds(asked_of, path)
            print(f"{what:<30} {took:8.3f} s {size / 1e6:8.2f} MB")


if __name__ == "__main__":
    main()
