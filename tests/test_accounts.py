"""The accounts of the configuration: what stands in the file, whose keys they get, what is said of what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from compactor.broker.credentials import BadCredentials
from compactor.settings.accounts import AccountSettings, find_accounts
from compactor.settings.configuration import BadConfiguration, load

DESK = {"DESK_KEY": "PKDESK", "DESK_SECRET": "desk-secret"}
ENVIRONMENT = {"APCA_API_KEY_ID": "PKDEFAULT", "APCA_API_SECRET_KEY": "default-secret"}


def accounts(data: Path, text: str) -> tuple[AccountSettings, ...]:
    (data / "compactor.toml").write_text(text)
    return load(data).settings.accounts


def problems(data: Path, text: str) -> list[str]:
    (data / "compactor.toml").write_text(text)
    with pytest.raises(BadConfiguration) as caught:
        load(data)
    return [problem.removeprefix(f"{data}/compactor.toml: ") for problem in caught.value.problems]


def test_without_any_there_is_one_from_the_environment(data: Path) -> None:
    """Issue 4, 7: the keys of the environment, for paper trading."""
    (found,) = find_accounts(load(data).settings.accounts, ENVIRONMENT)
    assert ("default", "PKDEFAULT", True, None, ()) == (
        found.name, found.credentials.key, found.credentials.paper, found.team, found.patterns,
    )  # fmt: skip


@pytest.mark.parametrize("form", ["[accounts.desk]", '[[accounts]]\nname = "desk"'])
def test_an_account_has_its_own_variables_team_patterns_and_address(data: Path, form: str) -> None:
    """Issue 4, 5 and 7: several accounts, each with its own credentials."""
    text = (
        f'{form}\nkey_variable = "DESK_KEY"\nsecret_variable = "DESK_SECRET"\nteam = "house"\n'
        'patterns = "desk-(?P<team>[a-z]+)"\nlive = "yes-real-money"\nurl = "http://127.0.0.1:1"\n'
    )
    (found,) = find_accounts(accounts(data, text), {**ENVIRONMENT, **DESK})
    keys = found.credentials
    assert ("desk", "PKDESK", False, "house", "http://127.0.0.1:1") == (
        found.name, keys.key, keys.paper, found.team, keys.url,
    )  # fmt: skip
    assert ["desk-(?P<team>[a-z]+)"] == [pattern.pattern for pattern in found.patterns]


def test_an_account_without_its_keys_names_its_variables(data: Path) -> None:
    """Issue 4, 7: the keys of the environment are no stand-in for those that an account names."""
    text = '[accounts.desk]\nkey_variable = "DESK_KEY"\nsecret_variable = "DESK_SECRET"\n'
    with pytest.raises(BadCredentials, match=r"expected both of DESK_KEY \+ DESK_SECRET"):
        find_accounts(accounts(data, text), ENVIRONMENT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accounts = 3", "accounts: expected tables such as [accounts.main]"),
        ("[accounts]\ndesk = 3", "accounts.desk: expected a table, as [accounts.desk]"),
        ("[[accounts]]\nteam = 'a'", "accounts: an account needs a name: letters"),
        ("[[accounts]]\nname = 'a'\n[[accounts]]\nname = 'a'", "accounts: found two accounts called a"),
        ("[accounts.a]\nkey_variabel = 'X'", "accounts.a: unknown setting key_variabel; did you mean key_variable?"),
        ("[accounts.a]\nsecret = 'hush'", "accounts.a: unknown setting secret; expected one of key_variable, secret"),
        ("[accounts.a]\nkey_variable = 'PK 12'", "accounts.a: key_variable: expected the name of the environment"),
        ("[accounts.a]\nkey_variable = 'PKHUSH12'", "accounts.a: key_variable: expected the name of the environment"),
        ("[accounts.a]\nsecret_variable = 'hush7Xq'", "accounts.a: secret_variable: expected the name of the env"),
        ("[accounts.a]\nkey_variable = 'A_KEY'", "accounts.a: expected both key_variable and secret_variable"),
        ("[accounts.a]\nlive = true", 'accounts.a: live: expected "yes-real-money" for real money'),
        ("[accounts.a]\nteam = '../b'", "accounts.a: team: expected a team id"),
        ("[accounts.a]\npatterns = ['desk']", "accounts.a: patterns: expected regular expressions with a group"),
        ("[accounts.a]\npatterns = ['(']", "accounts.a: patterns: expected regular expressions with a group"),
        ("[accounts.a]\nurl = 3", "accounts.a: url: expected an address"),
        ("[accounts.a]\nurl = 'https://hush:PK 12@host'", "accounts.a: url: expected an address"),
    ],
)
def test_what_cannot_be_is_named_with_its_place_and_never_with_its_value(data: Path, text: str, expected: str) -> None:
    """Issue 4, 7: the error style of the settings, except that what was found may be a key and is not shown."""
    found = problems(data, text)
    assert any(problem.startswith(expected) for problem in found), found
    assert not any(word in problem for problem in found for word in ("hush", "PK 12", "PKHUSH12"))


def test_all_that_is_wrong_is_told_at_once(data: Path) -> None:
    """One run names every problem of the file."""
    assert 3 == len(problems(data, "poll_seconds = 99\n[accounts.a]\nlive = 1\nteam = 1"))
