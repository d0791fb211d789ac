"""Headless Chromium, told what to do through a pipe: what a reader sees of a page and does."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_OPTIONS = (
    "--headless --no-sandbox --use-angle=swiftshader --ignore-gpu-blocklist "
    "--enable-unsafe-swiftshader --hide-scrollbars --remote-debugging-pipe"
).split()


class Chromium:
    """A window without a screen; use it in a ``with`` block.

    Parameters
    ----------
    width, height : int
        Of the window, in pixels.
    """

    def __init__(self, width=1100, height=750):
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        theirs, self._tell = os.pipe()
        self._hear, told = os.pipe()
        options = [*_OPTIONS, f"--window-size={width},{height}"]
        options += [f"--user-data-dir={self._profile.name}", "about:blank"]
        command = f'exec "$0" "$@" 3<&{theirs} 4>&{told}'  # where Chromium expects them
        self._process = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM, *options],
            pass_fds=(theirs, told),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(told)
        self._heard, self._count, self._session = b"", 0, {}
        self._events = []
        pages = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        page = pages[0]["targetId"]
        session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.terminate()
        self._process.wait(30)
        os.close(self._tell)
        os.close(self._hear)
        self._profile.cleanup()

    def call(self, method, **parameters):
        """Send a command of the DevTools protocol; return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters} | self._session
        os.write(self._tell, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            self._events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _next(self):
        while b"\0" not in self._heard:
            if not select.select([self._hear], [], [], 120)[0]:
                raise TimeoutError("Chromium has said nothing for 120 s.")
            more = os.read(self._hear, 1 << 20)
            if not more:
                raise RuntimeError("Chromium has ended.")
            self._heard += more
        message, self._heard = self._heard.split(b"\0", 1)
        return json.loads(message)

    def run(self, script):
        """Return what JavaScript in the page gives, awaited."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"]["description"])
        return result["result"].get("value")

    def open(self, path, ready="document.body && document.body.dataset.drawn"):
        """Open a file and wait until it is drawn; return seconds."""
        self._events.clear()
        start = time.perf_counter()
        self.call("Page.navigate", url=Path(path).resolve().as_uri())
        while not self.run(ready):
            if time.perf_counter() > start + 120:
                raise TimeoutError(f"{path} was not drawn in 120 s.")
            time.sleep(0.02)
        # on the screen, not only in the script
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return time.perf_counter() - start

    @property
    def requests(self):
        """Addresses that the page asked for since it was opened, itself left out."""
        sent = [e["params"] for e in self._events if e["method"] == "Network.requestWillBeSent"]
        addresses = [p["request"]["url"] for p in sent if p["type"] != "Document"]
        return [address for address in addresses if not address.startswith(("data:", "blob:"))]

    def point(self, x, y, *, press=False):
        """Move the pointer to a place of the window, in pixels, and click if it shall `press`."""
        for kind in ("mouseMoved", *(("mousePressed", "mouseReleased") if press else ())):
            pressed = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **pressed)

    def save_screenshot(self, path):
        """Write what is seen as PNG."""
        Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
