"""The dashboard of a study: what it answers, that it follows a search, and that it leaves no trace."""

from __future__ import annotations

import io
import json
import sys
import threading
import urllib.request
import webbrowser
from contextlib import contextmanager
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import pytest
from optuna.trial import TrialState

from nas import registry, searching
from nas.configuration import PartConfiguration, SearchConfiguration
from nas.dashboard import Dashboard, dashboard, serve
from nas.errors import ConfigurationError
from nas.lease import lease
from nas.storage import open_storage
from nas.study import Budget

SEARCH = ("--space", "nasbench201", "--set", "cells=1", "--set", "channels=4", "--seed", "1")
STORAGES = {"journal": "journal:{}/study.journal", "sqlite": "sqlite:///{}/studies.db"}
QUICK = ("--evaluator", "complexity")


def ask(app: Dashboard, path: str, method: str = "GET") -> tuple[str, dict[str, str], bytes]:
    """The status, headers and body of an answer."""
    environ: dict[str, object] = {"REQUEST_METHOD": method, "wsgi.input": io.BytesIO(b"{}")}
    environ["PATH_INFO"], _, environ["QUERY_STRING"] = path.partition("?")
    setup_testing_defaults(environ)
    said = []

    def start(status, headers, failure=None):
        said.append((status, dict(headers)))
        return lambda data: None

    answer = app(environ, start)
    body = b"".join(answer)
    close = getattr(answer, "close", None)  # of a file
    if close is not None:
        close()
    return *said[-1], body


def detail(app: Dashboard, after: int = 0) -> dict:
    status, _, body = ask(app, f"/api/studies/{app.study_id}?after={after}")
    assert status == "200 OK"
    return json.loads(body)


@pytest.fixture(scope="module", params=STORAGES)
def study(request, tmp_path_factory):
    """The dashboard of a study of four trials, which no test changes."""
    folder = tmp_path_factory.mktemp("study")
    search = SearchConfiguration(
        PartConfiguration("nasbench201", {"cells": 1, "channels": 4}),
        PartConfiguration("random"),
        (PartConfiguration("complexity"),),
    )
    storage = STORAGES[request.param].format(folder)
    named = searching.named(search, Budget(trials=4), name="small", storage=storage, results=folder)
    searching.search(named, results=folder)
    return shown(folder)


def shown(results: Path) -> Dashboard:
    return dashboard(
        searching.stored("small", results=results), results / "studies" / "small" / "study.toml"
    )


@pytest.fixture(params=STORAGES)
def growing(request, nas_command):
    """The dashboard of a study of two trials, which a test may change."""
    storage = ("--storage", STORAGES[request.param].format("."))
    nas_command("search", "--study", "small", *SEARCH, *QUICK, "--trials", 2, *storage)
    return shown(Path("results"))


def test_every_trial_has_a_note_with_text_drawing_and_metrics(study) -> None:
    said = detail(study)
    assert [t["number"] for t in said["trials"]] == [0, 1, 2, 3]
    for trial in said["trials"] + said["best_trials"]:
        body = trial["note"]["body"]
        assert f"/nasgram/trials/{trial['number']}/architecture.svg" in body
        assert "network(cell(" in body
        assert "| activation\\_bytes |" in body
        assert "| B |" in body


def test_the_study_has_a_note_with_the_command_that_regenerates_it(study) -> None:
    body = detail(study)["note"]["body"]
    assert f"nas search {study.file} --study small-again" in body
    assert "4 trials: 4 complete" in body


def test_that_command_runs_the_same_search(growing, nas_command) -> None:
    nas_command("search", "results/studies/small/study.toml", "--study", "small-again")
    first, again = (nas_command.json("show", name)["trials"] for name in ("small", "small-again"))
    assert [t["architecture"] for t in first] == [t["architecture"] for t in again]


def test_attributes_are_short_and_metrics_are_columns_that_sort(study) -> None:
    said = detail(study)
    columns = {c["key"]: c["sortable"] for c in said["union_user_attrs"]}
    assert columns["params"]
    assert not columns["architecture"]
    for trial in said["trials"]:
        found = {a["key"]: a["value"] for a in trial["user_attrs"]}
        assert found.keys() <= columns.keys()
        assert float(found["params"]) > 0
        assert all(len(value) <= 80 for value in found.values())


def test_drawings_are_answered_for_every_trial_and_kept_by_no_browser(study) -> None:
    for name, kind in {"architecture.svg": "image/svg+xml", "curve.svg": "image/svg+xml"}.items():
        status, headers, body = ask(study, f"/nasgram/trials/3/{name}")
        assert status == "200 OK"
        assert headers["Content-Type"].startswith(kind)
        assert headers["Cache-Control"] == "no-store"
        assert body.startswith(b"<svg")
    _, headers, text = ask(study, "/nasgram/trials/3/architecture.txt")
    assert headers["Content-Type"].startswith("text/plain")
    assert text.decode() == study.storage.get_all_trials(study.study_id)[3].user_attrs["architecture"]


def test_a_trial_that_is_not_there_is_not_found(study) -> None:
    assert ask(study, "/nasgram/trials/99/architecture.svg")[0] == "404 Not Found"
    assert ask(study, "/nasgram/trials/x/architecture.svg")[0].startswith("404")
    assert ask(study, "/api/studies/99")[0].startswith("404")


def state(app: Dashboard) -> object:
    """All that a storage holds of its studies."""
    fresh = open_storage(app.configuration.storage)
    return [(vars(s), fresh.get_all_trials(s._study_id)) for s in fresh.get_all_studies()]


def files(app: Dashboard) -> dict[Path, bytes]:
    assert app.file is not None
    return {f: f.read_bytes() for f in app.file.parents[2].rglob("*") if f.is_file()}


def test_looking_leaves_no_trace(study) -> None:
    before, on_disk = state(study), files(study)
    for _ in range(2):
        again = shown(study.file.parents[2])
        detail(again)
        ask(again, "/nasgram/trials/0/architecture.svg")
        ask(again, f"/csv/{again.study_id}")
    assert state(study) == before
    assert files(study) == on_disk


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/studies/{}"),
        ("POST", "/api/studies/{}/rename"),
        ("PUT", "/api/studies/{}/note"),
        ("POST", "/api/studies"),
        ("POST", "/api/trials/0/tell"),
    ],
)
def test_what_would_change_something_is_refused(study, method: str, path: str) -> None:
    before = state(study)
    status, _, body = ask(study, path.format(study.study_id), method)
    assert status == "403 Forbidden"
    assert "only reads" in json.loads(body)["reason"]
    assert state(study) == before


def test_a_search_that_goes_on_is_followed(growing, nas_command) -> None:
    nas_command("resume", "small", "--trials", 3)
    assert ask(growing, "/nasgram/trials/2/architecture.svg")[0] == "200 OK"
    storage, study_id = growing.storage, growing.study_id
    claim = {"architecture": "network(cell(none, none, none, none, none, none))", "lease": lease()}
    trial_id = storage.create_new_trial(study_id)
    for key, value in claim.items():
        storage.set_trial_user_attr(trial_id, key, value)
    said = detail(growing, after=3)["trials"]
    assert [t["number"] for t in said] == [3]
    assert said[0]["note"]["body"].startswith("**Running:**")
    storage.set_trial_state_values(trial_id, TrialState.FAIL)
    assert "**Failed**" in detail(growing)["trials"][3]["note"]["body"]


def test_a_note_written_by_hand_is_kept_below(growing) -> None:
    growing.storage.set_study_system_attr(growing.study_id, "dashboard:note_ver", 1)
    growing.storage.set_study_system_attr(growing.study_id, "dashboard:note_str:0", "Seen by *hand*.")
    note = detail(growing)["note"]
    assert note["body"].endswith("---\n\nSeen by *hand*.")
    assert note["version"] == 1


def test_a_study_is_shown_by_its_record_alone(nas_command) -> None:
    nas_command("search", "--study", "small", *SEARCH, *QUICK, "--trials", 2)
    storage = "journal:results/studies/small/study.journal"
    app = dashboard(searching.stored("small", storage=storage, results=Path("none")))
    assert "nas search study.toml --study small-again" in detail(app)["note"]["body"]


def test_curves_have_the_units_of_the_metrics(nas_command) -> None:
    two = ("--evaluator", "complexity", "--evaluator", "training", "--set", "epochs=2")
    objectives = ("--objective", "accuracy:max", "--objective", "params:min")
    nas_command("search", "--study", "small", *SEARCH, *two, *objectives, "--trials", 1)
    app = dashboard(searching.stored("small"))
    assert "curve.svg?points=2" in detail(app)["trials"][0]["note"]["body"]
    drawn = ask(app, "/nasgram/trials/0/curve.svg")[2].decode()
    assert ">accuracy (%)<" in drawn
    assert ">loss (nats)<" in drawn


def test_drawings_need_no_data(nas_command, monkeypatch) -> None:
    nas_command("search", "--study", "small", *SEARCH, "--set", "epochs=1", "--trials", 1)
    from nas.errors import DataError

    made = registry.make

    def make(kind, name, settings):
        if kind == "task":
            raise DataError("the data are not here.")
        return made(kind, name, settings)

    monkeypatch.setattr(registry, "make", make)
    app = dashboard(searching.stored("small"))
    assert b">network<" in ask(app, "/nasgram/trials/0/architecture.svg")[2]


@contextmanager
def answering(app: Dashboard, port: int):
    with serve(app, "127.0.0.1", port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_a_server_answers_at_the_next_free_port(study) -> None:
    with answering(study, 18080) as port, answering(study, port) as following:
        assert following > port
        for each in (port, following):
            with urllib.request.urlopen(f"http://127.0.0.1:{each}/") as page:
                assert page.url.endswith("/dashboard")
                assert b"<html" in page.read()
            with urllib.request.urlopen(
                f"http://127.0.0.1:{each}/api/studies/{study.study_id}"
            ) as said:
                assert len(json.loads(said.read())["trials"]) == 4


def test_an_address_of_another_machine_is_refused(study) -> None:
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1"):
        serve(study, "192.0.2.1", 18080)


@pytest.mark.parametrize("port", [0, -5, 65536])
def test_what_is_no_port_is_refused(study, port: int) -> None:
    with pytest.raises(ConfigurationError, match="1 to 65535"):
        serve(study, "127.0.0.1", port)


def test_the_command_prints_the_address_opens_it_and_ends_with_ctrl_c(nas_command, monkeypatch) -> None:
    nas_command("search", "--study", "small", *SEARCH, *QUICK, "--trials", 1)
    opened = []
    seen = threading.Event()

    def serve_forever(server):
        seen.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr("wsgiref.simple_server.WSGIServer.serve_forever", serve_forever)
    monkeypatch.setattr(webbrowser, "open", lambda address: (opened.append(address), seen.set()))
    address = nas_command("dashboard", "small", "--port", 18080).strip()
    assert opened == [address]
    assert "/dashboard/studies/" in address
    assert "Stopped." in nas_command.err
    nas_command("dashboard", "small", "--port", 18080, "--no-browser")
    assert len(opened) == 1


def test_a_study_that_does_not_exist_is_refused_with_the_nearest(nas_command) -> None:
    nas_command("search", "--study", "small", *SEARCH, *QUICK, "--trials", 1)
    said = nas_command.refused("dashboard", "smal")
    assert 'did you mean "small"?' in said


def test_without_the_extra_it_is_named(nas_command, monkeypatch) -> None:
    nas_command("search", "--study", "small", *SEARCH, *QUICK, "--trials", 1)
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    assert 'pip install "nasgram[dashboard]"' in nas_command.refused("dashboard", "small")
