"""The command line run within the test's own process, as a user's shell would."""

from __future__ import annotations

import json
import sys

import pytest

from nas import cli


class Command:
    """`nas` with arguments; remembers what was printed."""

    def __init__(self, monkeypatch, capsys):
        self.monkeypatch, self.capsys = monkeypatch, capsys
        self.out = self.err = ""

    def __call__(self, *arguments, status=0):
        self.monkeypatch.setattr(sys, "argv", ["nas", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        self.out, self.err = self.capsys.readouterr()
        assert ended.value.code == status, self.err
        return self.out

    def json(self, *arguments):
        return json.loads(self(*arguments, "--json"))

    def refused(self, *arguments):
        """The one sentence of a command that cannot be done: exit code 2, no traceback."""
        self(*arguments, status=2)
        assert "Traceback" not in self.out + self.err
        lines = [line for line in self.err.splitlines() if line.strip()]
        return lines[-1]
