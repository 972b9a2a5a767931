"""optuna-dashboard on one study, with a note on the study and on every trial, and drawings.

It only reads. Notes and drawings are made when a page asks for them and put into what
optuna-dashboard answers; they are never written into the storage, so that opening a dashboard leaves
no trace, costs a search nothing and follows one that runs. Requests that would change something
(optuna-dashboard can rename and delete studies) are refused.
"""

from __future__ import annotations

import errno
import json
import re
import webbrowser
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from nas import registry
from nas.architecture import Architecture, read
from nas.configuration import PartConfiguration, SearchConfiguration, StudyConfiguration, make_evaluator
from nas.curve_drawing import curve_svg
from nas.dashboard_notes import IMAGES, Notes, Trials, Units, curve, search_curve
from nas.drawing import svg
from nas.errors import ConfigurationError, DataError, SearchSpaceError
from nas.storage import open_storage
from nas.study import METRICS

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

MOST_PORTS = 100  # that are tried, from the wanted one on
SHORTEST = 80  # characters of a text among a trial's attributes, which a page does not wrap
_IMAGE = re.compile(
    re.escape(IMAGES) + r"/(\d+)/(architecture\.svg|architecture\.txt|curve\.svg|search\.svg)"
)
_DETAIL = re.compile(r"/api/studies/(\d+)/?")
Json = dict[str, Any]  # Any: JSON values
Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Dashboard:
    """A WSGI application: optuna-dashboard's, with notes and drawings of one study, for reading."""

    configuration: StudyConfiguration
    file: Path | None  # its study.toml, where there is one
    storage: BaseStorage
    study_id: int
    notes: Notes
    inner: WSGIApplication

    @property
    def page(self) -> str:
        """The path of the study's page."""
        return f"/dashboard/studies/{self.study_id}"

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer a request: a drawing, the study with notes, or what optuna-dashboard answers."""
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            reason = "This dashboard only reads; change the study by `nas`, or by optuna-dashboard."
            return _answer(start, "403 Forbidden", "application/json", json.dumps({"reason": reason}))
        if image := _IMAGE.fullmatch(path):
            return self._image(int(image[1]), image[2], start)
        detail = _DETAIL.fullmatch(path)
        if detail and int(detail[1]) == self.study_id:
            return self._detail(environ, start)
        return self.inner(environ, start)

    def _image(self, number: int, what: str, start: StartResponse) -> Iterable[bytes]:
        """The drawing, text or curve of a trial."""
        try:
            trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)
        except KeyError:
            return _answer(start, "404 Not Found", "text/plain", f"There is no trial {number}.")
        trial = self.storage.get_trial(trial_id)
        text = trial.user_attrs.get("architecture", "")
        if what == "curve.svg":
            return _answer(start, "200 OK", "image/svg+xml", self._curve(trial))
        if what == "search.svg":
            drawn = curve_svg(search_curve(trial), self.notes.units.metrics)
            return _answer(start, "200 OK", "image/svg+xml", drawn)
        if what == "architecture.txt" or not text:
            return _answer(start, "200 OK", "text/plain", text)
        return _answer(start, "200 OK", "image/svg+xml", svg(self.notes.read(text)))

    def _curve(self, trial: FrozenTrial) -> str:
        objective = self.notes.units.objectives[0].metric
        rows = [{k or objective: v for k, v in row.items()} for row in curve(trial)]
        return curve_svg(rows, self.notes.units.metrics)

    def _detail(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """What optuna-dashboard says of the study, with our notes."""
        said: list[tuple[str, Headers]] = []

        def keep(status: str, headers: Headers, _: object = None) -> Callable[[bytes], object]:
            said.append((status, headers))
            return lambda data: None

        body = b"".join(self.inner(environ, keep))
        status, headers = said[-1]
        if not status.startswith("200"):
            start(status, headers)
            return [body]
        detail = json.loads(body)
        self._describe(detail)
        return _answer(start, status, "application/json", json.dumps(detail))

    def _describe(self, detail: Json) -> None:
        """Put notes into the study, and attributes that can be read into the place of raw ones."""
        among = Trials(self.storage.get_all_trials(self.study_id, deepcopy=False))
        for shown in (*detail["trials"], *detail["best_trials"]):
            trial = among.trials[shown["number"]]
            shown["note"] = _note(self.notes.trial(trial, among), shown["note"])
            shown["user_attrs"] = _listed(attributes(trial, self.notes.units))
        detail["note"] = _note(self.notes.study(self.configuration, self.file, among), detail["note"])
        detail["user_attrs"] = _listed(self.configuration.search.tables())
        detail["union_user_attrs"] = [
            {"key": name, "sortable": sortable} for name, sortable in columns(self.notes.units).items()
        ]


def columns(units: Units) -> dict[str, bool]:
    """The columns of the table of trials beyond optuna-dashboard's own; whether they are numbers."""
    titles = [_title(name, unit) for name, unit in units.metrics.items()]
    numbers = dict.fromkeys([*titles, _title("cost", units.cost), _title("time", "s")], True)
    return {"architecture": False, **numbers, "reason": False}


def attributes(trial: FrozenTrial, units: Units) -> Json:
    """What a trial has in these columns: on one short line each, since a page does not wrap them."""
    recorded = trial.user_attrs
    result = recorded.get("evaluation", {})
    found: Json = {"architecture": _short(recorded.get("architecture", ""))}
    if result:
        found |= {_title(name, unit): value for name, value, unit, _ in units.rows(result)}
    reason = result.get("infeasible") or recorded.get("closed")
    return found | ({"reason": _short(reason)} if reason else {})


def _title(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit not in ("", "1") else name


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHORTEST else line[: SHORTEST - 1] + "…"


def _listed(given: Mapping[str, Any]) -> list[dict[str, str]]:  # Any: JSON values
    texts = {
        k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in given.items()
    }
    return [{"key": key, "value": text} for key, text in texts.items()]


def _note(ours: str, theirs: Json) -> Json:
    """Our note, and below it one that was written by hand in optuna-dashboard."""
    by_hand = theirs.get("body", "")
    return {
        "version": theirs.get("version", 0),
        "body": f"{ours}\n\n---\n\n{by_hand}" if by_hand else ours,
    }


def _answer(start: StartResponse, status: str, kind: str, text: str) -> Iterable[bytes]:
    """An answer that no browser keeps: another study may be at the same address tomorrow."""
    body = text.encode()
    headers = {
        "Content-Type": f"{kind}; charset=utf-8",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
        "X-Content-Type-Options": "nosniff",
    }
    start(status, list(headers.items()))
    return [body]


def dashboard(configuration: StudyConfiguration, file: Path | None = None) -> Dashboard:
    """The dashboard of a study that exists (`nas.searching.stored`); `file` is its study.toml."""
    try:
        from optuna_dashboard import wsgi  # here, since it is an extra
    except ImportError as error:
        raise ConfigurationError(
            "the dashboard needs the package optuna-dashboard, which is not installed; "
            'run pip install "nasgram[dashboard]".'
        ) from error
    storage = open_storage(configuration.storage)
    study_id = storage.get_study_id_from_name(configuration.name)
    recorded = storage.get_study_user_attrs(study_id).get(METRICS, {})
    search = configuration.search
    for path in search.load:
        registry.load(Path(path))
    units = Units(
        {name: metric["unit"] for name, metric in recorded.items()},
        make_evaluator(search.evaluators).cost_unit,
        search.objectives,
    )
    notes = Notes(units, _reader(search), f"/dashboard/studies/{study_id}")
    return Dashboard(configuration, file, storage, study_id, notes, wsgi(storage))


def _reader(search: SearchConfiguration) -> Callable[[str], Architecture]:
    """Reads an architecture's text, by the space where it can: only that knows symbols and roles."""
    space = _made("space", search.space)
    if search.task is not None:
        try:
            space = space.at(_made("task", search.task).signature)
        except DataError:  # looked at where the data are not: drawn by the text alone
            return read

    def parse(text: str) -> Architecture:
        try:
            architecture: Architecture = space.parse(text)
        except SearchSpaceError:  # the space has changed since
            return read(text)
        return architecture

    return parse


def _made(kind: str, part: PartConfiguration) -> Any:  # Any: a part of any kind
    return registry.make(kind, part.name, part.settings)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without asking a name server for this machine's name, as the inherited one does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # Any: as in its interface
        """Nothing: a page asks every few seconds."""


def serve(app: WSGIApplication, host: str, port: int) -> WSGIServer:
    """A server of it at the port or the next one that is free; `serve_forever` answers."""
    if not 0 < port < 65536:
        raise ConfigurationError(f"{port} is no port; allowed: 1 to 65535, such as 8080.")
    for candidate in range(port, min(port + MOST_PORTS, 65536)):
        try:
            return make_server(host, candidate, app, _Server, _Quiet)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise ConfigurationError(
                    f'nothing can be served at "{host}" ({error}); allowed: an address of this '
                    "machine, such as 127.0.0.1."
                ) from error
    raise ConfigurationError(
        f"none of the ports {port} to {min(port + MOST_PORTS, 65536) - 1} is free at {host}; "
        "name another by --port."
    )


def answer(server: WSGIServer, address: str | None) -> None:
    """Answer requests until Ctrl-C; an address is opened in a browser."""
    if address is not None:
        Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    with suppress(KeyboardInterrupt):
        server.serve_forever()
