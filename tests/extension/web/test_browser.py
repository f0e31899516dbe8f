"""End to end in a browser: upload, segment, erase and paint in the page, fine-tune, keep, segment again.

A real Slicer scene and segment editor (trame-slicer), the extension's controller, a real worker, headless
Chromium. Screenshots go to the folder that SCREENSHOTS names.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import MODULE, WORKER_PYTHON
from playwright.sync_api import sync_playwright

pytestmark = [pytest.mark.browser, pytest.mark.slow]

APP = Path(__file__).with_name("app.py")
SAMPLE = MODULE / "Resources" / "Samples" / "hippocampus_148.nii.gz"
WAIT_MS = 400_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def server(tmp_path):
    """The application, as a process; its address."""
    port = free_port()
    environment = {
        **os.environ,
        "XLSTM_UNET_WORKER_PYTHON": WORKER_PYTHON,
        "XLSTM_UNET_HOME": str(tmp_path / "home ü"),
        "MODEL": "hippocampus-mri",
        "STEPS": "8",
        "OMP_NUM_THREADS": "1",
    }
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(APP), str(port)], env=environment, stdout=log, stderr=log
        )
        try:
            until = time.monotonic() + 200
            while not listens(port):
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                assert time.monotonic() < until, "the server does not listen"
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def page(server):
    """The page, loaded."""
    with sync_playwright() as playwright:
        system = shutil.which("chromium")
        own = Path(playwright.chromium.executable_path)
        chromium = playwright.chromium.launch(
            executable_path=None if own.exists() else system, args=["--no-sandbox"]
        )
        page = chromium.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(WAIT_MS)
        page.goto(server)
        page.wait_for_selector(".xlstm")
        yield page
        chromium.close()


def status(page) -> str:
    return page.inner_text(".xlstm")


def wait_for(page, text: str) -> str:
    page.wait_for_function(f"document.querySelector('.xlstm').innerText.includes({text!r})")
    assert "ERROR" not in status(page), status(page)
    return status(page)


def press(page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def shoot(page, name: str) -> None:
    page.wait_for_timeout(3000)
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        page.screenshot(path=f"{folder}/{name}.png")


def stroke(page, tool: str, start: tuple[int, int], end: tuple[int, int]) -> None:
    """Draw with a tool in the large slice view."""
    page.locator(f"button:has(.mdi-{tool}):visible").first.click()
    page.wait_for_timeout(1500)
    page.mouse.move(*start)
    page.mouse.down()
    for part in range(1, 9):
        x, y = (a + (b - a) * part / 8 for a, b in zip(start, end, strict=True))
        page.mouse.move(x, y)
        page.wait_for_timeout(120)
    page.mouse.up()
    page.wait_for_timeout(1500)


def count_until(page, least: int) -> int:
    """Press Count until so many voxels are corrected: strokes arrive with a delay."""
    for _ in range(60):
        press(page, "Count")
        page.wait_for_timeout(3000)
        found = re.search(r"(\d+) voxels corrected", status(page))
        if found and int(found.group(1)) >= least:
            return int(found.group(1))
    raise AssertionError(status(page))


def test_upload_segment_correct_finetune_and_segment_again(page):
    page.set_input_files("input[type=file]:not([webkitdirectory])", str(SAMPLE))
    wait_for(page, "ready")
    shoot(page, "web-loaded")
    press(page, "Segment")
    wait_for(page, "Done in")
    shoot(page, "web-segmented")
    press(page, "Count")
    wait_for(page, "Nothing is corrected yet")

    stroke(page, "eraser", (540, 310), (670, 440))
    erased = count_until(page, 1)
    stroke(page, "brush", (470, 520), (520, 560))
    assert count_until(page, erased + 1) > erased
    shoot(page, "web-corrected")

    press(page, "Fine-tune")
    wait_for(page, "8 steps in")
    shoot(page, "web-finetuned")
    press(page, "Keep")
    wait_for(page, "has learned from your corrections")
    assert "hippocampus-mri-tuned" in wait_for(page, "-tuned")
    press(page, "Segment")
    wait_for(page, "Done in")
    shoot(page, "web-segmented-again")
