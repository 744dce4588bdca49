"""A browser to look at pages with: Chromium without a window, spoken to over its debugging pipe.

The standard library is enough: the DevTools protocol is JSON messages that end in a zero byte.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections import deque
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SECONDS = 60.0


def find() -> str | None:
    """The browser's program, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def install() -> str:
    """Install Debian's package; return what went wrong, or "" if nothing did."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return "it is not on PATH and cannot be installed (that needs apt-get and root)"
    for command, seconds in (
        (["apt-get", "update"], 120),
        (["apt-get", "install", "--yes", "--no-install-recommends", "chromium"], 300),
    ):
        try:
            subprocess.run(
                command,
                check=True,
                capture_output=True,
                timeout=seconds,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            )
        except subprocess.TimeoutExpired:
            return f"{' '.join(command)} took more than {seconds} s"
        except subprocess.CalledProcessError as error:
            return f"{' '.join(command)} failed: {error.stderr.decode(errors='replace')[-300:]}"
    return "" if find() else "it is not on PATH even after it was installed"


class Chromium:
    """One browser; `open` gives pages."""

    def __init__(self, program: str, profile: Path) -> None:
        # The child reads commands from its descriptor 3 and answers on 4.
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands, answers)]

        def at_three_and_four() -> None:
            for place, end in zip((3, 4), high, strict=True):
                os.dup2(end, place)

        self._process = subprocess.Popen(
            [
                program,
                "--headless",
                "--no-sandbox",  # root in a container has no other way
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--host-resolver-rules=MAP * 0.0.0.0",
                f"--user-data-dir={profile}",
                "--remote-debugging-pipe",
            ],
            preexec_fn=at_three_and_four,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (commands, answers, *high):
            os.close(end)
        self._buffer = b""
        self._last = 0
        self.events: deque[dict] = deque()

    def close(self) -> None:
        try:
            self.call("Browser.close")
            self._process.wait(10)
        except (TimeoutError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def call(self, method: str, session: str | None = None, **parameters) -> dict:
        """Send one command and return its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _SECONDS
        while True:
            answer = self._next(deadline)
            if answer.get("id") != self._last:
                self.events.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']}")
            else:
                return answer["result"]

    def _next(self, deadline: float) -> dict:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise TimeoutError("Chromium did not answer")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise OSError("Chromium ended")
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def open(
        self,
        file: Path,
        *,
        width: int = 1200,
        dark: bool = False,
        scripts: bool = True,
        medium: str = "",
    ) -> "Page":
        """Open a file in a new tab and wait until it is drawn."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", media=medium, features=[scheme])
        page.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        page.call("Page.navigate", url=file.resolve().as_uri())
        page.wait_for("Page.loadEventFired")
        if scripts:
            page.settle()
        return page


class Page:
    """One tab."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **parameters) -> dict:
        return self._browser.call(method, self._session, **parameters)

    def events(self, *methods: str) -> list[dict]:
        """The parameters of this tab's events of these kinds, so far."""
        return [
            event["params"]
            for event in self._browser.events
            if event.get("sessionId") == self._session and event["method"] in methods
        ]

    def wait_for(self, method: str) -> None:
        deadline = time.monotonic() + _SECONDS
        while not self.events(method):
            self._browser.events.append(self._browser._next(deadline))

    def settle(self) -> None:
        """Wait until two more frames are drawn."""
        self.evaluate("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")

    def problems(self) -> list[str]:
        """Errors, warnings, and requests for anything but the page itself."""
        found = [str(e["exceptionDetails"]) for e in self.events("Runtime.exceptionThrown")]
        found += [str(e["args"]) for e in self.events("Runtime.consoleAPICalled")]
        found += [e["entry"]["text"] for e in self.events("Log.entryAdded")]
        urls = [e["request"]["url"] for e in self.events("Network.requestWillBeSent")]
        return found + [u for u in urls if not u.startswith(("file:", "data:"))]

    def evaluate(self, script: str):
        """The value of a JavaScript expression; promises are waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def place(self, selector: str, across: float = 0.5, down: float = 0.5) -> tuple[float, float]:
        """Scroll to an element; the point at these shares of its width and height."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{element}.scrollIntoView({{block: 'center'}})")
        box = self.evaluate(f"{element}.getBoundingClientRect().toJSON()")
        return box["x"] + across * box["width"], box["y"] + down * box["height"]

    def mouse(self, kind: str, x: float, y: float, *, button: str = "none", clicks: int = 0):
        held = 1 if button == "left" and kind != "mouseReleased" else 0
        self.call(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=y,
            button=button,
            buttons=held,
            clickCount=clicks,
        )

    def click(self, selector: str, clicks: int = 1) -> None:
        x, y = self.place(selector)
        for count in range(1, clicks + 1):
            self.mouse("mousePressed", x, y, button="left", clicks=count)
            self.mouse("mouseReleased", x, y, button="left", clicks=count)

    def drag(self, selector: str, start: float, end: float) -> None:
        """Drag across an element, between two shares of its width."""
        (x0, y), (x1, _) = self.place(selector, start), self.place(selector, end)
        self.mouse("mousePressed", x0, y, button="left", clicks=1)
        for share in (0.3, 0.7, 1.0):
            self.mouse("mouseMoved", x0 + share * (x1 - x0), y, button="left")
        self.mouse("mouseReleased", x1, y, button="left", clicks=1)

    def press(self, key: str, text: str = "") -> None:
        code = {"Enter": 13, " ": 32}.get(key, 0)
        text = text or {"Enter": "\r", " ": " "}.get(key, "")
        down = {"text": text} if text else {}
        self.call(
            "Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **down
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def type(self, selector: str, text: str) -> None:
        """Replace what is in a text field."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).select()")
        self.call("Input.insertText", text=text)

    def screenshot(self, file: Path) -> None:
        """The whole page as a PNG."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(picture["data"]))

    def pdf(self) -> bytes:
        """The page as it would be printed."""
        return base64.b64decode(self.call("Page.printToPDF")["data"])

    def close(self) -> None:
        self.call("Page.close")
