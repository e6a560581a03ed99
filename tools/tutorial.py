"""The first run of docs/first_run.md: its output and its pictures.

    python tools/tutorial.py

Runs the command on a terminal of 120 columns, in a folder of its own below `--work`, and writes
`benchmarks/results/tutorial.md` and the pictures in `images/`: the terminal while trials ran, the report, TensorBoard.
Where it has run there already, only the pictures of the report and of TensorBoard are taken anew. Needs Chromium.
"""

from __future__ import annotations

import fcntl
import html
import io
import json
import os
import pty
import shutil
import socket
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import pyte
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright
from pyte.screens import Char

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from common import RESULTS, arguments, machine

PICTURES = ROOT / "images"
COLUMNS, LINES = 120, 40
NAME = "resnet20"
WEIGHTS, DATA = "weights/resnet20_cifar10jpeg.safetensors", "datasets/cifar10-jpeg"
OWN_WEIGHTS, OWN_DATA = "resnet20.safetensors", "cifar10"
COMMAND = f"jobs/ice_prune.py --model cifar-resnet20 --weights {OWN_WEIGHTS} --data parquet:{OWN_DATA}"
OPTIONS = f"--ratio 0.6 --replay.subsample 0.1 --name {NAME}"
VERSIONS = ("ice_ray", "torchvision", "ray", "numpy", "torch-pruning", "tensorboard")
COLOURS = {"default": "#d5dae0", "brown": "#e5c07b", "red": "#e06c75", "green": "#98c379", "cyan": "#56b6c2"}
Line = list[Char]


def run(folder: Path) -> tuple[list[str], list[Line]]:
    """What was left on the terminal in the end, and what it showed while the last trials ran.

    Raises:
        SystemExit: the job failed.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    screen = pyte.HistoryScreen(COLUMNS, LINES, history=5000)
    stream = pyte.ByteStream(screen)
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    words = [sys.executable, *f"{COMMAND} {OPTIONS}".split()]
    job = subprocess.Popen(words, cwd=folder, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    shown: list[Line] = []
    with suppress(OSError):  # what a terminal says whose last writer has gone
        while output := os.read(master, 65536):
            stream.feed(output)
            if any("trials done" in line for line in screen.display):
                shown = _lines(screen)
    if job.wait():
        raise SystemExit(f"the job ended with {job.returncode}:\n" + "\n".join(screen.display))
    gone = [[line[column] for column in range(COLUMNS)] for line in screen.history.top]
    left = ["".join(char.data for char in line).rstrip() for line in [*gone, *_lines(screen)]]
    return [line for line in left if line], shown


def _lines(screen: pyte.Screen) -> list[Line]:
    return [[screen.buffer[row][column] for column in range(COLUMNS)] for row in range(LINES)]


def terminal(browser: Browser, lines: Sequence[Line]) -> None:
    """`terminal.png`."""
    rows = [f"$ python {COMMAND} \\", f"    {OPTIONS}"]
    for line in lines:
        text = "".join(_marked(char) for char in line)
        rows += [text.rstrip()] if any(char.data.strip() for char in line) else []
    page = browser.new_page(viewport=ViewportSize(width=1045, height=100))
    style = "margin:0;padding:14px 16px;background:#1c2026;color:#d5dae0;font:14px/18.8px 'DejaVu Sans Mono'"
    page.set_content(f"<body style=\"{style}\"><pre style='margin:0;font:inherit'>" + "\n".join(rows) + "</pre>")
    _save("terminal", _image(page.screenshot(full_page=True)))


def _marked(char: Char) -> str:
    colour = COLOURS.get(char.fg, COLOURS["default"])
    weight = ";font-weight:bold" if char.bold else ""
    plain = char.fg == "default" and not char.bold
    return html.escape(char.data) if plain else f'<span style="color:{colour}{weight}">{html.escape(char.data)}</span>'


def report(browser: Browser, run: Path) -> None:
    """`report.png`: its head in light, what follows in dark; `phone.png`: three places of it on a phone."""
    loss, replay = "Every trial: time against accuracy drop", "The replay, step by step"
    _save("report", _beside([_shot(browser, run, 1075, 1330, 0.72, *at) for at in (("light", ""), ("dark", loss))]))
    _save("phone", _beside([_shot(browser, run, 390, 844, 1, "light", at) for at in ("", loss, replay)], 20))


def _shot(
    browser: Browser, run: Path, width: int, height: int, scale: float, scheme: Literal["light", "dark"], heading: str
) -> Image.Image:
    """A screen of the report, from a heading on."""
    viewport = ViewportSize(width=width, height=height)
    page = browser.new_page(viewport=viewport, color_scheme=scheme, device_scale_factor=scale)
    page.goto((run / "report.html").as_uri())
    if heading:
        page.get_by_role("heading", name=heading).evaluate("it => scrollTo(0, it.getBoundingClientRect().top - 40)")
    page.wait_for_timeout(300)
    shot = _image(page.screenshot())
    page.close()
    return shot


def _beside(shots: Sequence[Image.Image], gap: int = 0) -> Image.Image:
    """Pictures of one height, from left to right."""
    width = sum(shot.width for shot in shots) + gap * (len(shots) - 1)
    whole, at = Image.new("RGB", (width, shots[0].height), "white"), 0
    for shot in shots:
        whole.paste(shot, (at, 0))
        at += shot.width + gap
    return whole


def _image(shot: bytes) -> Image.Image:
    return Image.open(io.BytesIO(shot)).convert("RGB")


def _save(name: str, picture: Image.Image) -> None:
    picture.save(PICTURES / f"{name}.png", optimize=True)


def tensorboard(browser: Browser, folder: Path) -> None:
    """`scalars.png`, `images.png` and `hparams.png`."""
    with _serving(folder) as address:
        wanted = "tagFilter=validation%7Cparameters_left%7Ccumulative&_smoothingWeight=0"
        for name, place, width, height in (
            ("scalars", f"#scalars&{wanted}", 1280, 722),
            ("images", "#images", 1280, 552),
            ("hparams", "#hparams", 2080, 500),
        ):
            page: Page = browser.new_page(viewport=ViewportSize(width=width, height=height))
            page.goto(f"{address}/{place}")
            page.wait_for_timeout(8000)  # it draws piece by piece and says of none that it is done
            _save(name, _image(page.screenshot()))
            page.close()


@contextmanager
def _serving(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "tensorboard.main", "--logdir", f"runs/{NAME}/tensorboard", "--port", str(port)]
    server = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(60):
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
                break
            time.sleep(1)
        else:
            raise SystemExit("TensorBoard does not answer")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def page_of(left: Sequence[str], run: Path) -> str:
    """`tutorial.md`."""
    versions = ", ".join(f"{name} {version(name).split('+')[0]}" for name in VERSIONS)
    precision = json.loads((run / "summary.json").read_text())["precision"]
    return f"""# A first run, as in docs/first_run.md

`python {COMMAND} {OPTIONS}`

{machine()}; {versions}; arithmetic in {precision}. One
run, by `python tools/tutorial.py`, which took the pictures in `images/` too. `resnet20.safetensors` and `cifar10`
are `{WEIGHTS}` and `{DATA}` of `--shared`. What was left on a terminal
of {COLUMNS} columns:

```
{chr(10).join(left)}
```
"""


def main() -> None:
    """Run it, write the page and take the pictures."""
    parser = arguments(__doc__, RESULTS)
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared", help="folder with datasets/ and weights/"
    )
    options = parser.parse_args()
    folder, shared = (options.work / "tutorial").resolve(), options.shared.resolve()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        if not (folder / "runs" / NAME / "summary.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for name, place in (("jobs", ROOT / "jobs"), (OWN_WEIGHTS, shared / WEIGHTS), (OWN_DATA, shared / DATA)):
                (folder / name).symlink_to(place)
            left, shown = run(folder)
            terminal(browser, shown)
            (options.results / "tutorial.md").write_text(page_of(left, folder / "runs" / NAME))
        report(browser, folder / "runs" / NAME)
        tensorboard(browser, folder)
        browser.close()


if __name__ == "__main__":
    main()
