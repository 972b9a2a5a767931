"""A headless Chromium, driven through its own pipe: no driver and no package is needed."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
WAIT_SECONDS = 60.0


def find() -> str | None:
    """The program, where there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """A page of the browser; `requests` are the addresses it asked for, `errors` what it logged."""

    def __init__(self, program: str, width: int = 1300, height: int = 1000) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._folder = tempfile.mkdtemp()
        self._last = 0
        self._read = b""
        to_browser, self._out = _pipe()
        self._in, from_browser = _pipe()

        def place() -> None:  # it reads at 3 and writes at 4
            os.dup2(to_browser, 3)
            os.dup2(from_browser, 4)

        size = f"--window-size={width},{height}"
        profile = f"--user-data-dir={self._folder}"
        self._process = subprocess.Popen(
            [program, *OPTIONS, size, profile],
            preexec_fn=place,
            pass_fds=(3, 4),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._session = ""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *failure: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, address: str, until: str) -> None:
        """Go to a page and wait until a JavaScript expression is true there."""
        self._ask("Page.navigate", url=address)
        self.wait(until)

    def wait(self, until: str) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + WAIT_SECONDS
        while not self.value(
            f"(() => {{ try {{ return !!({until}) }} catch (e) {{ return false }} }})()"
        ):
            assert time.monotonic() < end, (
                f"not true in {WAIT_SECONDS} s: {until}\n{self.text()[:3000]}"
            )
            time.sleep(0.1)

    def value(self, expression: str) -> Any:  # Any: JSON values
        """The value of a JavaScript expression in the page."""
        return self._ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get(
            "value"
        )

    def text(self) -> str:
        """What a reader sees."""
        return str(self.value("document.body ? document.body.innerText : ''"))

    def screenshot(self, path: Path) -> None:
        """Write what is seen as a PNG."""
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"]))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:  # Any: JSON values
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            said = self._receive()
            if said.get("id") == self._last:
                assert "error" not in said, said
                return said["result"]
            self._note(said)

    def _receive(self) -> dict[str, Any]:  # Any: JSON values
        while b"\0" not in self._read:
            more = os.read(self._in, 1 << 20)
            assert more, "the browser ended"
            self._read += more
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def _note(self, said: dict[str, Any]) -> None:  # Any: JSON values
        with suppress(KeyError):
            if said["method"] == "Network.requestWillBeSent":
                self.requests.append(said["params"]["request"]["url"])
            if said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                self.errors.append(str(said["params"]["entry"]))
            if said["method"] == "Runtime.exceptionThrown":
                self.errors.append(str(said["params"]["exceptionDetails"]))


def _pipe() -> tuple[int, int]:
    """The ends to read from and to write to, both above the numbers that the browser uses."""
    high = []
    for end in os.pipe():
        high.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(end)
    return high[0], high[1]
