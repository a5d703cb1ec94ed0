"""A headless Chromium for tests, spoken to through its DevTools protocol: what a page says, asks for and looks like."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.support.patience import PATIENCE_S, wait_for

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZE = (1600, 1300)
FLAGS = (
    "--headless=new",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
)


def find_chromium() -> str | None:
    """Return the browser's program, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One open page: everything it complained of and every address it asked for."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._last = connection, 0
        self.errors: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Return the value of an expression once it is something."""
        end = time.monotonic() + PATIENCE_S
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"it never came: {expression}; the page says: {self.errors}"
            time.sleep(0.2)
        return value

    def screenshot(self, file: Path) -> None:
        """Keep what the page looks like as a PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._last += 1
        self._connection.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=PATIENCE_S))
            if message.get("id") == self._last:
                assert "error" not in message, message["error"]
                return dict(message["result"])
            self._hear(message.get("method", ""), message.get("params", {}))

    def _hear(self, event: str, told: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif event == "Network.webSocketCreated":
            self.requests.append(told["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"].get("exception", {}).get("description", told)))
        elif event == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(part.get("value", part.get("description"))) for part in told["args"]))
        elif event == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")


@contextmanager
def open_page(profile: Path) -> Iterator[Page]:
    """Start a browser with an empty page; it ends with the block.

    Args:
        profile: An empty folder for what the browser keeps.
    """
    program = find_chromium()
    assert program, f"none of {', '.join(NAMES)} is installed"
    command = [program, *FLAGS, "--no-sandbox", f"--user-data-dir={profile}", f"--window-size={SIZE[0]},{SIZE[1]}"]
    command += ["--remote-debugging-port=0", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_page_address(profile / "DevToolsActivePort"), max_size=None) as connection:
            yield Page(connection)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _page_address(file: Path) -> str:
    wait_for(lambda: file.exists() and file.read_text().count("\n"))
    port = file.read_text().splitlines()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE_S) as answer:
        pages = [target for target in json.load(answer) if target["type"] == "page"]
    return str(pages[0]["webSocketDebuggerUrl"])
