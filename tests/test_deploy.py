"""What lies in `compactor/deploy`: unit, dashboard, alert rules; held against the daemon and its documentation."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from prometheus_client import generate_latest

import compactor
from compactor.daemon.health import Health, LedgerHealth
from compactor.daemon.metrics import Metrics

PACKAGE = Path(compactor.__file__).parent
DEPLOY = PACKAGE / "deploy"
ALERTS = (DEPLOY / "prometheus-alerts.yml").read_text()
UNIT = (DEPLOY / "compactor.service").read_text()
OPERATIONS = (PACKAGE / "docs" / "operations.md").read_text()


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DEPLOY / "grafana-dashboard.json").read_text())["panels"]
    return found


def alerts() -> dict[str, str]:
    """The text of each rule by its name, also of one that is a commented example."""
    parts = ALERTS.split("- alert: ")[1:]
    return {part.split()[0]: part for part in parts}


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\bcompactor_\w+", text))


def served() -> set[str]:
    """The samples that a daemon serves, of a ledger and an account for which all of them exist."""
    health = Health()
    health.ledgers["a"] = LedgerHealth(
        "a", "a", kinds={"new": 1}, last_pass_at=time.time(), last_event_at="2026-03-09T14:30:00+00:00"
    )
    health.update_account("default", last_message_at=1.0, last_reconcile_at=1.0)
    text = generate_latest(Metrics(health, Path()).registry).decode()
    return metrics_in("\n".join(line for line in text.splitlines() if not line.startswith("#")))


def test_every_metric_of_a_panel_is_served() -> None:
    """A test holds every metric that the dashboard names against `/metrics`."""
    asked = metrics_in("\n".join(target["expr"] for panel in panels() for target in panel["targets"]))
    assert len(asked) > 12
    assert set() == asked - served()


def test_every_metric_of_an_alert_is_served() -> None:
    """A test holds every metric that the alert rules name against `/metrics`."""
    asked = metrics_in(ALERTS)
    assert len(asked) > 6
    assert set() == asked - served()


def test_panels_do_not_overlap_and_each_has_an_id_of_its_own() -> None:
    """Grafana shows every panel where the file puts it."""
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels()
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert len(panels()) == len({panel["id"] for panel in panels()})


@pytest.mark.parametrize("name", alerts())
def test_every_alert_is_explained_and_says_how_bad_it_is(name: str) -> None:
    """Each has a severity, a summary, and a link to the section that says what to do."""
    rule = alerts()[name]
    assert re.search(r"severity: (critical|warning|info)\b", rule)
    assert 'summary: "' in rule
    assert f'runbook: "compactor/docs/operations.md#{name.lower()}"' in rule
    assert f"\n### {name}\n" in OPERATIONS


def test_every_section_of_an_alert_has_its_alert() -> None:
    """An alert that was removed is removed from operations.md, too."""
    assert set(alerts()) == set(re.findall(r"^### (Compactor\w+)$", OPERATIONS, re.MULTILINE))


@pytest.mark.skipif(which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("directory", ["data", "my data"])
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path, directory: str) -> None:
    """The unit file as it is printed passes systemd's own check, also where a path has a space."""
    data = tmp_path / directory
    data.mkdir()
    text = UNIT
    for name, value in {"@USER@": "root", "@DATA@": str(data), "@PYTHON@": "/bin/true", "@COMMAND@": "run"}.items():
        text = text.replace(name, value)
    assert "@" not in text.replace("@system-service", "")
    unit = tmp_path / "compactor.service"
    unit.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (0, "") == (done.returncode, "\n".join(line for line in done.stderr.splitlines() if "compactor" in line))


@pytest.mark.parametrize(
    "setting",
    ["Type=notify", "NotifyAccess=main", "WatchdogSec=60", "Restart=always", "ProtectSystem=strict",
     'ReadWritePaths="@DATA@"', "NoNewPrivileges=yes", "User=@USER@",
     "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", "RestartPreventExitStatus=4",
     "EnvironmentFile=-/etc/compactor.env"],
)  # fmt: skip
def test_the_unit_is_confined_and_watched(setting: str) -> None:
    """`Type=notify`, a watchdog, its own user, and nothing to write but its data."""
    assert setting in UNIT.splitlines()
