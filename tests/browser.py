"""A headless Chromium for the tests of the page, through playwright: Debian's, because no other one is downloaded.

Where there is none the tests are skipped and say so; `.ci/run` installs it and sets TESTS_BROWSER=required, and
then they fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
REQUIRED = os.environ.get("TESTS_BROWSER") == "required"
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb", "--hide-scrollbars"]


def find_browser() -> str | None:
    """The path of a browser."""
    return next((path for name in NAMES if (path := shutil.which(name)) is not None), None)


def why_not() -> str | None:
    """Why the page cannot be tested here; None where it can."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError as error:
        return f"playwright is not installed: {error}"
    return None if find_browser() else f"found none of {', '.join(NAMES)}: apt-get install chromium"


@contextmanager
def open_browser() -> Iterator[Any]:
    """A browser, closed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
