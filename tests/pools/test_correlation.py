"""Rank correlations against scipy's, intervals against resampling done plainly, and the report."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from nas.correlation import correlations
from nas.correlation_report import correlate
from nas.errors import ConfigurationError, DataError
from nas.pool import Pool
from nas.truth import column
from tests.pools.making import pool_of, written

RNG = np.random.default_rng(0)
N = 60
TRUTH = RNG.normal(size=N)
CONTROL = np.round(TRUTH + RNG.normal(size=N), 1)
COLUMNS = {
    "close": TRUTH + 0.5 * RNG.normal(size=N),
    "tied": np.round(TRUTH + RNG.normal(size=N)),
    "opposed": -(TRUTH**3) + RNG.normal(size=N),
    "unrelated": RNG.normal(size=N),
}


@pytest.fixture(scope="module")
def found():
    return {c.metric: c for c in correlations(COLUMNS, TRUTH, CONTROL)}


def partial(x, y, z):
    xy, xz, yz = (spearmanr(*pair)[0] for pair in ((x, y), (x, z), (y, z)))
    return (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))


STATISTICS = {
    "spearman": lambda x, y, z: spearmanr(x, y)[0],
    "kendall": lambda x, y, z: kendalltau(x, y)[0],
    "partial": partial,
}


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("name", COLUMNS)
def test_values_are_those_of_the_definitions(found, name, statistic):
    expected = STATISTICS[statistic](COLUMNS[name], TRUTH, CONTROL)
    assert getattr(found[name], statistic).value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("name", COLUMNS)
def test_intervals_are_those_of_resampled_rows(found, name, statistic):
    rng, drawn = np.random.default_rng(1), []
    for _ in range(400):
        rows = rng.integers(0, N, N)
        drawn.append(STATISTICS[statistic](COLUMNS[name][rows], TRUTH[rows], CONTROL[rows]))
    estimate = getattr(found[name], statistic)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.06)
    assert estimate.low < estimate.value < estimate.high


def test_a_column_and_its_opposite_are_mirrored():
    one, other = correlations({"x": COLUMNS["close"], "y": -COLUMNS["close"]}, TRUTH, CONTROL)
    for statistic in STATISTICS:
        a, b = getattr(one, statistic), getattr(other, statistic)
        assert (a.value, a.low, a.high) == pytest.approx((-b.value, -b.high, -b.low), abs=1e-6)


def test_what_is_given_leaves_nothing_of_itself():
    same = correlations({"control": CONTROL, "twice": 2 * CONTROL}, TRUTH, CONTROL)
    assert all(np.isnan(c.partial.value) for c in same)


def test_missing_values_are_counted_and_the_others_correlated():
    x = COLUMNS["close"].copy()
    x[:10] = np.nan
    truth = TRUTH.copy()
    truth[55:] = np.nan
    (one,) = correlations({"x": x}, truth, CONTROL)
    assert (one.n, one.missing) == (45, 10)
    assert one.spearman.value == pytest.approx(spearmanr(x[10:55], TRUTH[10:55])[0], abs=1e-6)


@pytest.mark.parametrize("values", [np.ones(N), np.full(N, np.nan)], ids=["constant", "missing"])
def test_a_column_without_order_has_no_correlation(values):
    (one,) = correlations({"x": values}, TRUTH, CONTROL)
    assert np.isnan([one.spearman.value, one.kendall.value, one.kendall.low]).all()


def test_thousands_of_rows_take_seconds():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=6466)
    columns = {f"x{i}": truth + rng.normal(size=6466) for i in range(3)}
    began = time.process_time()
    correlations(columns, truth, rng.normal(size=6466))
    assert time.process_time() - began < 10


def pool(n=30):
    texts = [f"word({i})" for i in range(n)]
    return pool_of(texts, {"params": np.arange(n), "macs": np.arange(n) ** 2})


def test_the_truth_of_another_pool_is_joined_by_text(tmp_path):
    texts = ["word(4)", "word(99)", "word(2)"]
    path = written(pool_of(texts, {"accuracy": [40, 0, 20]}), tmp_path / "other.npz")
    found = column(pool(), f"{path}:accuracy", locate=None)
    assert (found[4], found[2], np.isnan(found).sum()) == (40, 20, 28)


@pytest.mark.parametrize(
    ("told", "error", "said"),
    [
        ("accuracy", ConfigurationError, "FILE:COLUMN"),
        ("none.npz:accuracy", DataError, "no file"),
        ("{other}:acuracy", DataError, 'did you mean "accuracy"'),
        ("{strange}:accuracy", DataError, "for none of the 30"),
        ("{table}:name", DataError, "not a column of numbers"),
        ("{table}:accuracy", DataError, "0 arrays of texts"),
    ],
)
def test_a_truth_that_says_nothing_is_refused(tmp_path, told, error, said):
    files = {
        "other": written(pool_of(["word(4)"], {"accuracy": [40]}), tmp_path / "other.npz"),
        "strange": written(pool_of(["net(4)"], {"accuracy": [40]}), tmp_path / "strange.npz"),
        "table": tmp_path / "table.npz",
    }
    np.savez(files["table"], accuracy=np.zeros(3), name=np.array(["a"]))
    with pytest.raises(error, match=said):
        column(pool(), told.format(**files), locate=None)


def test_the_command_reports_beside_params_and_macs(nas_command, tmp_path):
    nas_command(
        "score", "--space", "nasbench201", "--sample", 40, "--evaluator", "complexity", "-o", "p.npz"
    )
    told = nas_command.json(
        "correlate", "p.npz", "--truth", "p.npz:flops", "--metric", "activation_bytes"
    )
    assert [m["metric"] for m in told["metrics"]] == ["activation_bytes", "params", "macs"]
    assert told["metrics"][1]["partial"]["value"] is None
    table = nas_command("correlate", "p.npz", "--truth", "p.npz:flops")
    assert "1.000 [1.000, 1.000]" in table


def test_params_are_counted_where_the_pool_lacks_them(nas_command, tmp_path):
    nas_command(
        "score", "--space", "nasbench201", "--sample", 12, "--evaluator", "complexity", "-o", "p.npz"
    )
    whole = Pool.read(tmp_path / "p.npz")
    one = {
        n: {"flops": of["flops"]} for n, of in (("columns", whole.columns), ("metrics", whole.metrics))
    }
    replace(whole, **one).write(tmp_path / "q.npz")
    asked = ("--truth", "p.npz:macs", "--metric", "flops")
    one, other = (nas_command.json("correlate", p, *asked)["metrics"] for p in ("p.npz", "q.npz"))
    assert one == other


def test_ranks_of_several_metrics_are_one_metric(tmp_path):
    given = pool_of(
        [f"net({i})" for i in range(6)],
        {
            "up": [1, 2, 3, 4, 5, np.nan],
            "down": [5, 4, 3, 2, np.nan, np.nan],  # ranks 2, 3, 4, 5, and 1 for what is missing
            "params": [1, 1, 2, 2, 3, 3],
            "macs": [1, 1, 2, 2, 3, 3],
            "product": [1 * 2, 2 * 3, 3 * 4, 4 * 5, 5 * 1, 7],
        },
        down="minimize",
    )
    written(given, tmp_path / "p.npz")

    def spearman(name):
        report = correlate(given, f"{tmp_path}/p.npz:product", None, metrics=[name])
        assert report.rows()[0][1] == "maximize"
        assert (report.found[0].metric, report.found[0].n, report.found[0].missing) == (name, 5, 1)
        return report.found[0].spearman.value

    assert spearman("up+down") == pytest.approx(1)
    assert spearman("up:min+down:max") == pytest.approx(-0.4)
    with pytest.raises(DataError, match="sideways"):
        spearman("up+sideways")


def test_a_picture_has_a_panel_for_each_metric(nas_command, tmp_path):
    pytest.importorskip("matplotlib")
    nas_command(
        "score", "--space", "nasbench201", "--sample", 12, "--evaluator", "complexity", "-o", "p.npz"
    )
    nas_command("correlate", "p.npz", "--truth", "p.npz:flops", "--plot", "p.svg")
    drawn = (tmp_path / "p.svg").read_text()
    assert drawn.count('id="axes_') == 4


def test_a_published_table_is_a_truth(data_folder, nas_command):
    nas_command(
        "score", "--space", "nasbench201", "--sample", 400, "--evaluator", "complexity", "-o", "p.npz"
    )
    told = nas_command.json("correlate", "p.npz", "--truth", "nasbench201:c10_test200")
    params = next(m for m in told["metrics"] if m["metric"] == "params")
    assert params["n"] == 400
    assert params["spearman"]["low"] < 0.752 < params["spearman"]["high"]  # of all 15,625
