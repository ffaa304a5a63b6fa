"""A plugin of pytest, used twice: to see which test runs which line, and to run chosen tests in a chosen order.

`MUTANTS_MAP` names the file for what is seen: per test its outcome, its seconds, and the lines that it runs.
`MUTANTS_TESTS` names a file with the tests to run. What programs run that a test starts is not seen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

SEEN = os.environ.get("MUTANTS_MAP", "")
CHOSEN = os.environ.get("MUTANTS_TESTS", "")
ROOT = os.environ.get("MUTANTS_ROOT", "")


class Seer:
    """Watches every test. With several processes each writes a file of its own."""

    def __init__(self) -> None:
        from coverage import Coverage

        self._coverage = Coverage(data_file=None, include=[f"{ROOT}/compactor/*"], branch=False)
        self._tests: dict[str, dict[str, float | str]] = {}

    def start(self) -> None:
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid.partition("@")[0])
        try:
            return (yield)
        finally:
            self._coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self._tests.setdefault(report.nodeid.partition("@")[0], {"seconds": 0.0, "outcome": "passed"})
        test["seconds"] = float(test["seconds"]) + report.duration
        if report.outcome != "passed":
            test["outcome"] = report.outcome

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._coverage.stop()
        data = self._coverage.get_data()
        lines = {
            str(Path(name).relative_to(ROOT)): {
                str(line): tests for line, tests in data.contexts_by_lineno(name).items()
            }
            for name in data.measured_files()
        }
        Path(f"{SEEN}.{os.getpid()}").write_text(json.dumps({"tests": self._tests, "lines": lines}))


def pytest_configure(config: pytest.Config) -> None:
    is_controller = (
        hasattr(config.option, "numprocesses") and config.option.numprocesses and not hasattr(config, "workerinput")
    )
    if SEEN and not is_controller:
        seer = Seer()
        config.pluginmanager.register(seer, "seer")
        seer.start()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the chosen tests, in their order."""
    if CHOSEN:
        order = {name: at for at, name in enumerate(json.loads(Path(CHOSEN).read_text()))}
        items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])
