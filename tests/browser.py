"""A Chromium without a window for tests of pages, and what it asked for and complained of.

Chromium and its driver are a system's own packages (Debian: chromium chromium-driver); without them
these tests are skipped with the line that installs them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PHONE, NARROW, DESK = (390, 844), (400, 850), (1280, 900)
_NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Chrome]:
    """A browser of its own profile, which keeps a log of its requests and of its console."""
    browser = next((path for name in _NAMES if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for word in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-background-networking",
        "force-color-profile=srgb",
        "hide-scrollbars",
    ):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driven = webdriver.Chrome(options=options, service=Service(driver))
    try:
        driven.set_page_load_timeout(60)
        yield driven
    finally:
        driven.quit()


def view_size(browser: Chrome, size: tuple[int, int]) -> None:
    """Give the page this width and height, also less than a window may have."""
    width, height = size
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )


def prefer(browser: Chrome, scheme: str) -> None:
    """Let the page see a `light` or a `dark` screen."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def complaints(browser: Chrome) -> list[str]:
    """What the console was told since the last call, warnings and errors."""
    entries: list[dict[str, Any]] = browser.get_log("browser")
    return [entry["message"] for entry in entries if entry["level"] in {"WARNING", "SEVERE"}]


def asked(browser: Chrome) -> set[str]:
    """The addresses that the pages asked for since the last call, but for data within them."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    found = {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    return {url for url in found if not url.startswith("data:")}


def hosts_asked(browser: Chrome) -> set[str]:
    """Whom the pages asked for something since the last call: `127.0.0.1:8321`."""
    urls = map(urlsplit, asked(browser))
    return {url.netloc for url in urls if url.scheme in {"http", "https", "ws", "wss"}}


#: The least contrast of words with what is behind them.
FAINTEST = """
const light = (text) => {
  const parts = text.match(/[\\d.]+/g).slice(0, 3).map((n) => n / 255);
  const linear = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const ground = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(ground)) return ground;
  }
  return 'rgb(255, 255, 255)';
};
const kinds = 'p, li, td, th, summary, figcaption, h1, h2, a, dd, dt, button';
return Math.min(...[...document.querySelectorAll(kinds)].filter((e) => e.offsetParent).map((e) => {
  const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => x - y);
  return (b + 0.05) / (a + 0.05);
}));
"""
