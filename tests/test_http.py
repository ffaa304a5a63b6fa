"""What the daemon shows over HTTP and to Prometheus, asked for over a real socket; and what it tells systemd."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import msgspec
import pytest

import compactor
from compactor.daemon.health import Health, LedgerHealth
from compactor.daemon.http import serve
from compactor.daemon.metrics import Metrics
from compactor.daemon.presence import TEXT_BYTES, AlreadyRunning, read, take
from compactor.daemon.systemd import Systemd
from compactor.ledger import Ledger

DEPLOY = Path(compactor.__file__).parent / "deploy"
DOCS = Path(compactor.__file__).parent / "docs"


@pytest.fixture
def health() -> Health:
    health = Health()
    health.caught_up = True
    for team in ("alice", "bob"):
        health.ledgers[team] = LedgerHealth(team, team, "current", events=7, open_orders=2, lag_bytes=0)
    return health


@pytest.fixture
def url(health: Health) -> Iterator[str]:
    server = serve("127.0.0.1:0", health, Metrics(health))
    yield f"http://{server.address}"
    server.close()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def degrade(health: Health, team: str) -> None:
    row = msgspec.structs.replace(health.ledgers[team], state="degraded", kind="disk_full", reason="no room")
    health.ledgers[team] = row


def checks(text: str) -> dict[str, Any]:
    return {check["name"]: check for check in json.loads(text)["checks"]}


def test_a_current_daemon_is_alive_and_ready(url: str) -> None:
    """`/livez` and `/readyz` are 200 when the loop turns and every ledger is current."""
    assert 200 == get(f"{url}/livez")[0]
    status, text = get(f"{url}/readyz")
    assert (200, True) == (status, json.loads(text)["ok"])


def test_a_degraded_ledger_is_not_ready_and_says_why_but_alive(url: str, health: Health) -> None:
    """Each check with its reason as JSON."""
    degrade(health, "bob")
    status, text = get(f"{url}/readyz")
    assert 503 == status
    assert (False, "no room") == (checks(text)["ledger bob"]["ok"], checks(text)["ledger bob"]["reason"])
    assert checks(text)["ledger alice"]["ok"]
    assert 200 == get(f"{url}/livez")[0]


def test_a_ledger_that_is_still_read_is_not_ready(url: str, health: Health) -> None:
    """`/readyz`: caught up."""
    health.ledgers["alice"] = LedgerHealth("alice", "alice")
    status, text = get(f"{url}/readyz")
    assert (503, "catching up: alice") == (status, checks(text)["caught_up"]["reason"])


def test_a_loop_that_hangs_is_not_alive(url: str, health: Health) -> None:
    """`/livez` fails when the loop has not turned."""
    health.last_progress = time.monotonic() - 100
    assert 503 == get(f"{url}/livez")[0]
    assert 503 == get(f"{url}/readyz")[0]


def test_other_paths_are_not_found(url: str) -> None:
    """What is not there is 404, and says what is."""
    assert (404, "/livez\n/readyz\n/metrics\n") == get(f"{url}/secret")


def test_metrics_are_by_team_and_never_by_order(url: str, health: Health) -> None:
    """Never a label per order."""
    degrade(health, "bob")
    _, text = get(f"{url}/metrics")
    assert 'compactor_events_total{team="alice"} 7.0' in text
    assert 'compactor_ledger_degraded{team="bob"} 1.0' in text
    assert "compactor_degraded_ledgers 1.0" in text
    assert {"team", "le", "version"} == set(re.findall(r'[{,](\w+)="', text))


def test_passes_are_counted(tmp_path: Path, health: Health) -> None:
    """Pass duration, as a histogram."""
    metrics = Metrics(health)
    (tmp_path / "events.jsonl").write_bytes(b"")
    with Ledger(tmp_path) as ledger:
        metrics.observe_pass(ledger.compact(), 0.003)
    assert 1 == metrics.registry.get_sample_value("compactor_pass_duration_seconds_bucket", {"le": "0.005"})
    assert 0 == metrics.registry.get_sample_value("compactor_pass_duration_seconds_bucket", {"le": "0.002"})


def metrics_named(text: str) -> set[str]:
    return set(re.findall(r"\bcompactor_\w+", text))


def test_every_metric_that_dashboard_and_alerts_name_is_there(url: str) -> None:
    """A test holds every metric that they name against `/metrics`."""
    found = metrics_named(get(f"{url}/metrics")[1])
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += re.findall(r"expr: (.*)", (DEPLOY / "prometheus-alerts.yml").read_text())
    named = metrics_named("\n".join(asked))
    assert len(named) > 12
    assert set() == named - found


def test_every_alert_is_explained_and_has_severity_and_summary() -> None:
    """operations.md says what each alert means."""
    alerts = (DEPLOY / "prometheus-alerts.yml").read_text().split("- alert: ")[1:]
    operations = (DOCS / "operations.md").read_text()
    assert len(alerts) > 5
    for alert in alerts:
        assert f"\n### {alert.split()[0]}\n" in operations
        assert "severity: " in alert
        assert "summary: " in alert


def test_an_address_in_use_is_an_error(url: str, health: Health) -> None:
    """A port in use is an error before any work starts."""
    with pytest.raises(OSError, match="in use"):
        serve(url.removeprefix("http://"), health, Metrics(health))


# systemd.


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_over_its_socket(tmp_path: Path, abstract: bool) -> None:
    """Readiness, `STATUS=`, watchdog, stopping: one datagram each."""
    name = f"@compactor-{time.monotonic_ns()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name[1:] if abstract else name)
        receiver.settimeout(10)
        systemd = Systemd({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "60000000"})
        systemd.notify_ready()
        systemd.notify_status("3 ledgers, current")
        systemd.notify_watchdog()
        systemd.notify_watchdog()  # Too soon after the one before: not sent.
        systemd.notify_stopping()
        told = [receiver.recv(1000) for _ in range(4)]
    assert [b"READY=1", b"STATUS=3 ledgers, current", b"WATCHDOG=1", b"STOPPING=1"] == told


def test_without_systemd_nothing_is_told_and_nothing_fails() -> None:
    """Outside systemd there is no socket; one that is gone stops nothing either."""
    Systemd({}).notify_ready()
    Systemd({"NOTIFY_SOCKET": "/nowhere/at/all"}).notify_ready()


@pytest.mark.skipif(which("systemd-analyze") is None, reason="no systemd here")
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    """The unit file as it is printed passes systemd's own check."""
    text = (DEPLOY / "compactor.service").read_text()
    for name, value in {"@USER@": "root", "@DATA@": str(tmp_path), "@PYTHON@": "/bin/true"}.items():
        text = text.replace(name, value)
    assert "@" not in text.replace("@system-service", "")
    unit = tmp_path / "compactor.service"
    unit.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (0, "") == (done.returncode, "\n".join(line for line in done.stderr.splitlines() if "compactor" in line))


# Presence.


def test_the_report_of_many_ledgers_keeps_those_that_are_degraded(tmp_path: Path, health: Health) -> None:
    """The text never grows beyond its place, and what is degraded comes first."""
    for number in range(3000):
        health.ledgers[f"t{number}"] = LedgerHealth(f"t{number}", f"t{number}", "current")
    degrade(health, "t2999")
    presence = take(tmp_path)
    presence.publish(health)
    found = read(tmp_path)
    assert found is not None
    assert ("t2999", "degraded", "no room") == (
        found.ledgers[0].team_id,
        found.ledgers[0].state,
        found.ledgers[0].reason,
    )
    assert TEXT_BYTES == (tmp_path / ".compactor" / "daemon.lock").stat().st_size
    with pytest.raises(AlreadyRunning, match=f"process {health.pid}"):
        take(tmp_path)
    presence.close()
    assert read(tmp_path) is None
    take(tmp_path).close()
