"""Settings: where they come from, which wins, and what is said of those that cannot be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import compactor
from compactor.settings.configuration import BadConfiguration, Settings, load


def write(data: Path, text: str) -> Path:
    path = data / "compactor.toml"
    path.write_text(text)
    return path


def problems(data: Path, **more: Any) -> list[str]:
    with pytest.raises(BadConfiguration) as caught:
        load(data, **more)
    return caught.value.problems


def test_without_anything_the_defaults_are_in_force(tmp_path: Path) -> None:
    """Defaults: 7 days, 64 MiB, 24 hours, punch."""
    found = load(tmp_path)
    assert Settings() == found.settings
    assert {"default"} == set(found.origins.values())
    assert (7, 64 << 20, 24, "punch") == (
        found.settings.retention_days, found.settings.segment_bytes, found.settings.segment_age_hours,
        found.settings.reclaim,
    )  # fmt: skip


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(tmp_path: Path) -> None:
    """compactor.toml, environment over it, command line over both; each says where it came from."""
    path = write(tmp_path, 'retention_days = 1\npoll_seconds = 3\nlog_level = "debug"\nhttp = "localhost:1"')
    environ = {"COMPACTOR_POLL_SECONDS": "4", "COMPACTOR_LOG_LEVEL": "error", "COMPACTOR_DATA": "x", "HOME": "/"}
    found = load(tmp_path, environ=environ, given={"log_level": "warning", "http": None})
    assert (1, 4, "warning", "localhost:1") == (
        found.settings.retention_days, found.settings.poll_seconds, found.settings.log_level, found.settings.http,
    )  # fmt: skip
    assert (str(path), "COMPACTOR_POLL_SECONDS", "command line", str(path), "default") == tuple(
        found.origins[name] for name in ("retention_days", "poll_seconds", "log_level", "http", "seal")
    )


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("retention_days", "forever", None),
        ("retention_days", "0", 0),
        ("segment_bytes", "16 MiB", 16 << 20),
        ("segment_bytes", "5GB", 5 * 10**9),
        ("segment_bytes", "8192", 8192),
        ("seal", "no", False),
        ("seal", "TRUE", True),
        ("reclaim", "never", "never"),
        ("http", "[::1]:9464", "[::1]:9464"),
    ],
)
def test_the_environment_is_text(tmp_path: Path, key: str, text: str, value: object) -> None:
    """In the environment every kind of value is written as text."""
    assert value == getattr(load(tmp_path, environ={f"COMPACTOR_{key.upper()}": text}).settings, key)


@pytest.mark.parametrize(
    "text",
    [
        "retention_days = -1", "retention_days = 1.5", 'retention_days = "soon"', "segment_bytes = 1",
        'segment_bytes = "64 miles"', "segment_bytes = true", "seal = 1", 'reclaim = "delete"', "poll_seconds = 0",
        "poll_seconds = 11", "retention_days = 36501", "segment_age_hours = 876001", "segment_age_hours = 0",
        "seal = 1.0", 'http = "[::1]"', 'http = ":9464"', "reclaim = [1]",
        'http = "9464"', 'http = "localhost:99999"', "http = 9464", 'log_level = "loud"',
        'http_proxies = "10.0.0.0/40"', 'http_proxies = "10.0.0.1, desk"', "http_proxies = [10]",
    ],
)  # fmt: skip
def test_a_wrong_value_names_file_key_expected_and_found(tmp_path: Path, text: str) -> None:
    """Wrong types are errors that name file, key, expected and found."""
    path = write(tmp_path, text)
    key, _, value = text.partition(" = ")
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"{path}: {key}: expected ")
    assert value.strip('"').lower() in problem.lower()


def test_unknown_keys_are_errors_with_a_hint_and_all_problems_come_at_once(tmp_path: Path) -> None:
    """Unknown keys are errors."""
    path = write(tmp_path, 'segment_byte = 1\npoll_seconds = "soon"')
    found = problems(tmp_path, environ={"COMPACTOR_RETENTION": "7", "COMPACTOR_XYZZY": "1"})
    assert f"{path}: unknown setting segment_byte; did you mean segment_bytes?" == found[0]
    assert "poll_seconds: expected a whole number" in found[1]
    assert "environment: unknown setting COMPACTOR_RETENTION; did you mean retention_days?" == found[2]
    assert "unknown setting COMPACTOR_XYZZY; expected one of" in found[3]


def test_a_file_that_was_named_has_to_be_there_and_toml(tmp_path: Path) -> None:
    """`--config FILE` and COMPACTOR_CONFIG name a file; the one in the data directory may be missing."""
    assert "No such file" in problems(tmp_path, config=tmp_path / "none.toml")[0]
    assert "No such file" in problems(tmp_path, environ={"COMPACTOR_CONFIG": str(tmp_path / "none.toml")})[0]
    write(tmp_path, "retention_days = = 7")
    assert "not TOML" in problems(tmp_path)[0]


def test_the_file_in_the_data_directory_gives_way_to_one_that_is_named(tmp_path: Path) -> None:
    """`--config FILE`, else COMPACTOR_CONFIG, else compactor.toml in the data directory: one of them is read."""
    write(tmp_path, "retention_days = 1\nsegment_age_hours = 5")
    by_environment, by_option = tmp_path / "e.toml", tmp_path / "o.toml"
    by_environment.write_text("retention_days = 2")
    by_option.write_text("retention_days = 3")
    environ = {"COMPACTOR_CONFIG": str(by_environment)}
    assert 1 == load(tmp_path).settings.retention_days
    assert (2, 24) == (
        (named := load(tmp_path, environ=environ)).settings.retention_days, named.settings.segment_age_hours,
    )  # fmt: skip
    assert 3 == load(tmp_path, environ=environ, config=by_option).settings.retention_days
    assert by_option == load(tmp_path, environ=environ, config=by_option).file


@pytest.mark.parametrize(
    ("name", "text"),
    [("poll_seconds", "2.5"), ("poll_seconds", "-1"), ("seal", "maybe"), ("http", ""), ("retention_days", "٣")],
)
def test_a_wrong_value_in_the_environment_names_the_variable(tmp_path: Path, name: str, text: str) -> None:
    """Wrong types in the environment are errors that name variable, setting, expected and found."""
    variable = f"COMPACTOR_{name.upper()}"
    (problem,) = problems(tmp_path, environ={variable: text})
    assert problem.startswith(f"{variable}: {name}: expected ")
    assert problem.endswith(f"found {text!r}")


def test_a_wrong_value_of_the_command_line_is_named_as_such(tmp_path: Path) -> None:
    """What comes by the command line is held to the same."""
    assert ["command line: poll_seconds: expected a whole number from 1 to 10, found 3600"] == problems(
        tmp_path, given={"poll_seconds": 3600}
    )


def test_a_wrong_value_is_told_also_where_a_later_one_wins(tmp_path: Path) -> None:
    """Nothing is ignored, also not what would be overridden."""
    write(tmp_path, "poll_seconds = 0")
    assert 1 == len(problems(tmp_path, given={"poll_seconds": 3}))


def test_every_setting_is_documented() -> None:
    """configuration.md has a row for each setting, and none for what is no setting."""
    text = (Path(compactor.__file__).parent / "docs" / "configuration.md").read_text()
    assert list(Settings.__struct_fields__) == re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
