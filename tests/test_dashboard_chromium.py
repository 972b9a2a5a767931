"""The dashboard as a browser shows it: notes, drawings that load, and nothing asked of the internet."""

from __future__ import annotations

import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from nas import searching
from nas.configuration import PartConfiguration, SearchConfiguration
from nas.dashboard import dashboard, serve
from nas.problem import Objective
from nas.study import Budget
from tests.chromium import Chromium, find
from tests.large_derivations import residual_network

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find() is None, reason="no Chromium: install Debian's package chromium"),
]
LOADED = "[...document.images].length >= {} && [...document.images].every(i => i.naturalWidth > 0)"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A Pareto study with curves, served at a free port: (address, its dashboard)."""
    results: Path = tmp_path_factory.mktemp("results")
    search = SearchConfiguration(
        PartConfiguration("nasbench201", {"cells": 1, "channels": 4}),
        PartConfiguration("random"),
        (PartConfiguration("complexity"), PartConfiguration("training", {"epochs": 2})),
        objectives=(Objective("accuracy", "maximize"), Objective("params", "minimize")),
    )
    searching.search(
        searching.named(search, Budget(trials=3), name="seen", results=results), results=results
    )
    app = dashboard(
        searching.stored("seen", results=results), results / "studies" / "seen" / "study.toml"
    )
    with serve(app, "127.0.0.1", 18180) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}{app.page}", app
        server.shutdown()
        thread.join()


@pytest.fixture
def browser():
    program = find()
    assert program is not None
    with Chromium(program) as opened:
        yield opened


def outside(browser: Chromium) -> list[str]:
    """What was asked of anything but this machine."""
    parts = [(urlsplit(url), url) for url in browser.requests]
    return [
        url for part, url in parts if part.scheme in ("http", "https") and part.hostname != "127.0.0.1"
    ]


def test_a_trials_page_shows_its_metrics_curve_drawing_and_text(study, browser) -> None:
    address, app = study
    browser.open(f"{address}/trials?numbers=1", LOADED.format(2))
    text = browser.text()
    trial = app.storage.get_all_trials(app.study_id)[1]
    assert "Complete:" in text
    for quantity in ("accuracy", "loss", "params", "activation_bytes", "cost", "time"):
        assert quantity in text
    for unit in ("%", "nats", "epochs"):
        assert unit in text
    assert trial.user_attrs["architecture"] in text
    sources = browser.value("[...document.images].map(i => new URL(i.src).pathname)")
    assert "/nasgram/trials/1/architecture.svg" in sources
    assert "/nasgram/trials/1/curve.svg" in sources
    assert browser.errors == []
    assert len(browser.requests) >= 5
    assert outside(browser) == []


def test_the_studys_note_shows_the_command_that_regenerates_it(study, browser) -> None:
    address, app = study
    browser.open(f"{address}/note", LOADED.format(1))
    text = browser.text()
    assert f"nas search {app.file} --study seen-again" in text
    assert "The Pareto front" in text
    assert outside(browser) == []


def test_the_studys_page_shows_its_plots(study, browser) -> None:
    address, _ = study
    browser.open(address, "document.querySelectorAll('.js-plotly-plot').length > 1")
    assert "Pareto Front" in browser.text() or "History" in browser.text()
    assert outside(browser) == []


def test_a_large_derivation_is_folded_and_fits_the_page(study, browser) -> None:
    address, app = study
    tree = residual_network()
    assert sum(1 for _ in tree.nodes()) >= 250
    trial_id = app.storage.create_new_trial(app.study_id)
    app.storage.set_trial_user_attr(trial_id, "architecture", str(tree))
    number = app.storage.get_trial(trial_id).number
    browser.open(f"{address}/trials?numbers={number}", LOADED.format(1))
    assert "nested" in browser.text()
    assert 0 < browser.value("document.images[0].naturalWidth") <= 1000
    assert browser.value("document.images[0].getBoundingClientRect().width") >= 0.9 * browser.value(
        "document.images[0].naturalWidth"
    )
    assert browser.value("document.documentElement.scrollWidth") <= 1300
