"""The benchmark of replay and history measures what it says, on a log that is sealed and left for the others."""

from pathlib import Path

import pytest

from tests.bench import audit
from tests.bench.logs import logs_of


def test_it_measures_each_command_and_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command ends well on ids and offsets of the log; nothing derived or sealed is left, and no byte is gone."""
    monkeypatch.setattr(audit, "_PLACES", 2)
    monkeypatch.setattr(audit, "_LAST_PERCENT", (1,))
    assert 0 == audit.main(["--events", "3000", "--work", str(tmp_path)])
    told = capsys.readouterr()
    for row in ("history order_id", "history execution_id", "history trade_id", "replay --at, last percent", "--as-of"):
        assert row in told.out
    log = logs_of(next(tmp_path.iterdir()))[0]
    assert ["events.jsonl"] == [path.name for path in log.parent.iterdir()]
    assert b"\0" not in log.read_bytes()
