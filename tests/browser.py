"""A real browser: headless Chromium, driven over its DevTools protocol.

Knows: how to start it, look at a page, type, press keys and take pictures (https://chromedevtools.github.io/devtools-protocol/).
Must not know: what is on the pages.
"""

import asyncio
import base64
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

# fmt: off
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-port=0",
)
# fmt: on
_SECONDS = 30.0


class Browser:
    """One page of a browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.refused: list[str] = []  # what the page's policy has kept the browser from

    async def listen(self) -> None:
        """Take what the browser says, until it is closed."""
        async for message in self._socket:
            said = json.loads(message)
            if "id" in said:
                waiting = self._answers.pop(said["id"])
                if not waiting.done():
                    waiting.set_result(said)
            elif said["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif said["method"] == "Log.entryAdded" and "Content Security Policy" in said["params"]["entry"]["text"]:
                self.refused.append(said["params"]["entry"]["text"])

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        said = await asyncio.wait_for(self._answers[number], _SECONDS)
        assert "error" not in said, (method, said)
        return dict(said["result"])

    async def start(self, width: int, height: int, *, phone: bool) -> None:
        """Make it a window of this size, without scripts: nothing here needs any."""
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        await self.call("Emulation.setScriptExecutionDisabled", value=True)

    async def open(self, url: str) -> None:
        """Go to an address and wait until it is there."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), _SECONDS)

    async def look(self, expression: str) -> Any:
        """What an expression says of the page."""
        said = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in said, (expression, said)
        return said["result"].get("value")

    async def becomes(self, expression: str, value: Any) -> None:
        """Wait until an expression has this value: a browser moves the focus after it has loaded the page."""
        for _ in range(200):
            if await self.look(expression) == value:
                return
            await asyncio.sleep(0.05)
        raise AssertionError((expression, value))

    async def type(self, selector: str, text: str) -> None:
        """Put the cursor into a field and type."""
        await self.look(f"document.querySelector({json.dumps(selector)}).focus()")
        await self.call("Input.insertText", text=text)

    async def click(self, selector: str) -> None:
        """Click in the middle of an element."""
        box = await self.look(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
            f" return [r.x + r.width / 2, r.y + r.height / 2] }})(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    async def press(self, key: str) -> None:
        """Press a key: Tab, Enter, or the space bar."""
        code, text = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " ")}[key]
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, text=text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    async def press_on(self, key: str) -> None:
        """Press a key that leads to another page, and wait until that is there."""
        self._loaded.clear()
        await self.press(key)
        await asyncio.wait_for(self._loaded.wait(), _SECONDS)

    async def go_on(self, selector: str) -> None:
        """Click on what leads to another page, and wait until that is there."""
        self._loaded.clear()
        await self.click(selector)
        await asyncio.wait_for(self._loaded.wait(), _SECONDS)

    async def picture(self, file: Path) -> None:
        """Keep a picture of the whole page."""
        said = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        await asyncio.to_thread(file.write_bytes, base64.b64decode(said["data"]))


@asynccontextmanager
async def browsing(width: int, height: int, *, phone: bool = False) -> AsyncIterator[Browser]:
    """A browser with a window of this size; its profile is new, and thrown away."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium here")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        nothing = asyncio.subprocess.DEVNULL
        options = (*_FLAGS, f"--user-data-dir={profile}", "about:blank")
        process = await asyncio.create_subprocess_exec(program, *options, stdout=nothing, stderr=nothing)
        try:
            async with connect(await _find_page(Path(profile)), max_size=None) as socket:
                browser = Browser(socket)
                listening = asyncio.create_task(browser.listen())
                try:
                    await browser.start(width, height, phone=phone)
                    yield browser
                finally:
                    listening.cancel()
                    await asyncio.gather(listening, return_exceptions=True)
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), _SECONDS)


async def _find_page(profile: Path) -> str:
    """The address at which the browser's one page takes commands."""
    deadline, port = time.monotonic() + _SECONDS, profile / "DevToolsActivePort"
    async with httpx.AsyncClient() as http:
        while time.monotonic() < deadline:
            if port.exists() and (lines := port.read_text().splitlines()):
                for target in (await http.get(f"http://127.0.0.1:{lines[0]}/json/list")).json():
                    if target["type"] == "page":
                        return str(target["webSocketDebuggerUrl"])
            await asyncio.sleep(0.05)
    raise AssertionError("the browser did not start")
