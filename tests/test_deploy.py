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
from click.testing import CliRunner
from prometheus_client import generate_latest

import compactor
from compactor.daemon.health import Health, LedgerHealth
from compactor.daemon.metrics import Metrics
from compactor.ui.cli import app

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


needs_systemd = pytest.mark.skipif(which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def print_unit(*arguments: str | Path) -> str:
    """What `compactor systemd` prints."""
    result = CliRunner().invoke(app, ["systemd", *map(str, arguments)])
    assert 0 == result.exit_code, result.output
    return result.stdout


def analyze(verb: str, unit: str, tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "compactor.service"
    path.write_text(unit)
    return subprocess.run(["systemd-analyze", verb, *options, str(path)], capture_output=True, text=True)


@needs_systemd
@pytest.mark.parametrize("directory", ["data", "my data", "100%"])
@pytest.mark.parametrize("options", [[], ["--run", "--memory-max", "80%"]], ids=["watch", "run"])
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path, directory: str, options: list[str]) -> None:
    """The unit as it is printed passes systemd's own check, also where a path has a space or a per cent sign."""
    data = tmp_path / directory
    data.mkdir()
    unit = print_unit(data, "--user", "root", *options)
    assert "@" not in unit.replace("@system-service", "").replace("@privileged", "")
    done = analyze("verify", unit, tmp_path)
    assert (0, "") == (done.returncode, "\n".join(line for line in done.stderr.splitlines() if "compactor" in line))


@needs_systemd
@pytest.mark.parametrize("options", [[], ["--run"]], ids=["watch", "run"])
def test_the_unit_exposes_little(data: Path, tmp_path: Path, options: list[str]) -> None:
    """`systemd-analyze security` gives at most 1.5, with the link to the broker and without."""
    done = analyze("security", print_unit(data, "--user", "trader", *options), tmp_path, "--offline=true", "--no-pager")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= 1.5


def test_only_the_link_to_the_broker_reaches_other_machines(data: Path) -> None:
    """`watch` needs the loopback, for its metrics."""
    denied = ["IPAddressDeny=any", "IPAddressAllow=localhost"]
    assert denied == [line for line in print_unit(data).splitlines() if line.startswith("IPAddress")]
    assert [] == [line for line in print_unit(data, "--run").splitlines() if line.startswith("IPAddress")]


def test_the_witness_can_be_written(data: Path, tmp_path: Path) -> None:
    """The directory of the witness is writable too; where it is not there, the service starts all the same."""
    (data / "compactor.toml").write_text('witness = "/mnt/other/heads.jsonl"\n')
    assert f'ReadWritePaths="{data}" "-/mnt/other"' in print_unit(data).splitlines()
    elsewhere = tmp_path / "settings.toml"
    elsewhere.write_text('witness = "heads/all.jsonl"\n')
    unit = print_unit(data, "--config", elsewhere)
    assert f'ReadWritePaths="{data}" "-{data}/heads"' in unit.splitlines()
    assert f'"{data}" --config "{elsewhere}" --http' in unit


@pytest.mark.parametrize(
    ("size", "expected"), [("infinity", "infinity"), ("2G", "2G"), ("80%", "80%"), ("512M", "512M")]
)
def test_memory_has_a_limit_where_one_is_given(data: Path, size: str, expected: str) -> None:
    """`--memory-max` is MemoryMax of systemd, which counts the processes that the daemon starts too."""
    assert f"MemoryMax={expected}" in print_unit(data, "--memory-max", size).splitlines()
    assert "MemoryMax=infinity" in print_unit(data).splitlines()


@pytest.mark.parametrize("size", ["", "0", "2 G", "-1", "100%", "2G\nUser=root"])
def test_a_limit_that_systemd_would_not_take_is_refused(data: Path, size: str) -> None:
    """Wrong usage, with what was found and expected; no line of a unit can be smuggled in."""
    result = CliRunner().invoke(app, ["systemd", str(data), "--memory-max", size])
    assert 2 == result.exit_code
    assert "expected a size such as 2G" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "setting",
    ["Type=notify", "NotifyAccess=main", "WatchdogSec=60", "Restart=always", "ProtectSystem=strict",
     "ReadWritePaths=@WRITABLE@", "ProtectProc=invisible", "ProcSubset=pid", "PrivateMounts=yes",
     "NoNewPrivileges=yes", "User=@USER@",
     "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", "RestartPreventExitStatus=4",
     "EnvironmentFile=-/etc/compactor.env"],
)  # fmt: skip
def test_the_unit_is_confined_and_watched(setting: str) -> None:
    """`Type=notify`, a watchdog, its own user, and nothing to write but its data."""
    assert setting in UNIT.splitlines()
