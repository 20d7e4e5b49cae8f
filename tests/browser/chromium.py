"""A headless Chromium, spoken to over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

PATIENCE = 240.0  # seconds; a busy machine draws a page of MLflow in tens of them


def executable() -> str | None:
    """Where Chromium is, if it is installed."""
    return next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)


class Browser:
    """One tab. ``errors`` collects what pages wrote to the console as errors, exceptions included."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._loop, self._socket, self._last = loop, socket, 0
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self._command(f"{domain}.enable")

    def open(self, address: str, until: str, width: int = 1280, height: int = 1000, dark: bool = False) -> None:
        """Load a page and wait until a JavaScript expression is true of it."""
        self._command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._command("Emulation.setEmulatedMedia", features=theme)
        self._command("Page.navigate", url="about:blank")
        self._command("Page.navigate", url=address)
        self.wait(until)

    def wait(self, until: str) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.evaluate(f"Boolean(document.body) && Boolean({until})"):
            if time.monotonic() > deadline:
                raise AssertionError(f"never true: {until}\n{self.text()[:3000]}")
            time.sleep(0.3)

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression."""
        answer = self._command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self) -> str:
        """All words that can be seen."""
        return self.evaluate("document.body.innerText")

    def press(self, key: str) -> None:
        """Press a key, as a person does."""
        text = {"text": "\r"} if key == "Enter" else {}
        codes = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowRight": 39}
        for kind in ("keyDown", "keyUp"):
            self._command("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **text)

    def picture(self, path: Path) -> None:
        """What is seen, as a PNG file."""
        path.write_bytes(base64.b64decode(self._command("Page.captureScreenshot")["data"]))

    def _command(self, method: str, **arguments: Any) -> dict[str, Any]:
        return self._loop.run_until_complete(self._answer(method, arguments))

    async def _answer(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._last += 1
        await self._socket.send_json({"id": self._last, "method": method, "params": arguments})
        while True:
            message = await self._socket.receive_json(timeout=PATIENCE)
            self._note(message)
            if message.get("id") == self._last:
                assert "error" not in message, message["error"]
                return message["result"]

    def _note(self, message: dict[str, Any]) -> None:
        event, what = message.get("method"), message.get("params", {})
        if event == "Runtime.exceptionThrown":
            self.errors.append(str(what["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and what["type"] == "error":
            self.errors.append(" ".join(str(one.get("value", one.get("description"))) for one in what["args"]))
        elif event == "Log.entryAdded" and what["entry"]["level"] == "error":
            self.errors.append(f"{what['entry']['text']} {what['entry'].get('url', '')}")


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser whose own files lie in ``folder``."""
    command = [
        executable(),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "about:blank",
    ]
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loop = asyncio.new_event_loop()
    try:
        port = _port(folder / "DevToolsActivePort")
        session, socket = loop.run_until_complete(_connected(port))
        try:
            yield Browser(loop, socket)
        finally:
            loop.run_until_complete(socket.close())
            loop.run_until_complete(session.close())
    finally:
        process.terminate()
        process.wait(30)
        loop.close()


def _port(file: Path) -> int:
    deadline = time.monotonic() + PATIENCE
    while not (file.is_file() and file.read_text().strip()):
        assert time.monotonic() < deadline, "Chromium did not start"
        time.sleep(0.2)
    return int(file.read_text().splitlines()[0])


async def _connected(port: int) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    session = aiohttp.ClientSession()
    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
        pages = await answer.json()
    address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
    return session, await session.ws_connect(address, max_msg_size=0)
