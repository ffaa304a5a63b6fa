"""Make the picture of the page in the README: the real page, of a day that is written for it (`make picture`)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.browser import open_browser, why_not
from tests.conftest import ROOT
from tests.page_data import TeamLog
from tests.web_client import Served

TARGET = ROOT / "compactor" / "docs" / "page.png"


def main() -> int:
    """Write the picture; the exit code."""
    if (reason := why_not()) is not None:
        print(reason, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory)
        log = TeamLog(data, "alpha")
        log.asks = True
        log.day(60, 10)
        served = Served(data)
        try:
            with open_browser() as browser:
                page = browser.new_page(viewport={"width": 1180, "height": 760}, reduced_motion="reduce")
                page.goto(f"{served.url}/#key={served.key('alpha')}")
                page.locator("#orders-table tbody tr").first.wait_for()
                page.wait_for_timeout(1000)
                page.screenshot(path=str(TARGET))
        finally:
            served.close()
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
