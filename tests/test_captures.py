"""Importing captured messages: every event finds its team, nothing counts twice, and nothing is lost."""

import itertools
import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactor.imports.captures import import_alpaca
from compactor.ledger import BadTeam, Ledger
from tests.imported import by_team, read_files, sum_positions
from tests.test_alpaca import JSON, REAL, replace_part

FIXTURES = Path(__file__).parent.parent / "fixtures"
T = "2026-03-02T14:30:00Z"
TEAMS = ("alpha", "beta")
ORDER = {"id": "o1", "symbol": "AAPL", "side": "buy", "qty": "100", "type": "limit", "time_in_force": "day"}
ORDER |= {"status": "new", "filled_qty": "0", "created_at": T, "updated_at": T, "client_order_id": "c1"}


def _update(event: str, order: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stream": "trade_updates", "data": {"event": event, "timestamp": T, "order": {**ORDER, **order}, **fields}}


def _activity(order_id: str) -> dict[str, Any]:
    fill = {"price": "10", "qty": "100", "cum_qty": "100", "side": "buy", "symbol": "AAPL", "type": "fill"}
    return {"activity_type": "FILL", "id": f"act-{order_id}", "order_id": order_id, "transaction_time": T, **fill}


def _file(path: Path, messages: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(message) + "\n" for message in messages))
    return path


def _orders(data: Path) -> dict[str, set[str]]:
    """Which orders the log of each team tells of."""
    logs = {path.parent.name: path for path in data.glob("team/*/events.jsonl")}
    return {team: {json.loads(line)["order_id"] for line in log.read_text().splitlines()} for team, log in logs.items()}


def test_the_same_file_again_adds_nothing(tmp_path: Path) -> None:
    """Importing a file twice leaves every byte as it was, whichever messages it holds."""
    stories = (path.read_text() for path in sorted((FIXTURES / "alpaca").glob("*/messages.jsonl")))
    (tmp_path / "captured.jsonl").write_text("".join(stories))
    first = by_team(import_alpaca(tmp_path / "captured.jsonl", tmp_path / "data", team="alpha"))["alpha"]
    before = read_files(tmp_path / "data")
    again = by_team(import_alpaca(tmp_path / "captured.jsonl", tmp_path / "data", team="alpha"))["alpha"]
    assert before == read_files(tmp_path / "data")
    assert (0, first.events_appended + first.duplicates) == (again.events_appended, again.duplicates)
    assert first.problems == again.problems
    assert first.events_appended > 30


@pytest.mark.parametrize("at_once", [True, False])
def test_two_executions_under_one_event_id_are_two(tmp_path: Path, at_once: bool) -> None:
    """What a source calls them does not matter; the same one again is a duplicate, in one file and in two."""
    messages = [_update("new", {}, event_id="7", execution_id="e0")]
    for number in (1, 2):
        order = {"filled_qty": str(number), "status": "partially_filled"}
        messages.append(_update("partial_fill", order, event_id="7", execution_id=f"e{number}", price="10", qty="1"))
    files = [messages + messages] if at_once else [messages[:2], messages[1:], messages]
    for number, part in enumerate(files):
        import_alpaca(_file(tmp_path / f"f{number}", part), tmp_path / "data", team="alpha")
    trades = list(Ledger(tmp_path / "data/team/alpha").rows("trades"))
    assert ["e1", "e2"] == [trade["execution_id"] for trade in trades]
    assert 3 == len((tmp_path / "data/team/alpha/events.jsonl").read_bytes().splitlines())


def test_orders_go_to_the_team_in_their_client_order_id(tmp_path: Path) -> None:
    """`team:anything` names the team; what tells no team, or none that can be one, is unassigned."""
    ids = {"o1": "alpha:1", "o2": "beta:x:y", "o3": "61e69015-8549-4bfd", "o4": "../up:1", "o5": ":1", "o6": "gamma:"}
    messages = [_update("new", {"id": order_id, "client_order_id": client}) for order_id, client in ids.items()]
    by_team(import_alpaca(_file(tmp_path / "f", messages), tmp_path / "data", team=None, teams=TEAMS))
    expected = {"alpha": {"o1"}, "beta": {"o2"}, "unassigned": {"o3", "o4", "o5", "o6"}}
    assert expected == _orders(tmp_path / "data")


def test_what_is_no_ledger_knows_no_message(tmp_path: Path) -> None:
    """A directory whose name is no team id is not read, so that what it has is imported to a ledger."""
    messages = [_update("new", {"id": "o1", "client_order_id": "alpha:1"})]
    for _ in range(2):
        import_alpaca(_file(tmp_path / "f", messages), tmp_path / "data", team=None, teams=TEAMS)
        ledger = tmp_path / "data" / "team" / "alpha"
        assert 1 == len((ledger / "events.jsonl").read_bytes().splitlines())
        if not (ledger.parent / "no team").exists():
            ledger.rename(ledger.parent / "no team")
    assert ledger.exists()


def test_a_fill_goes_where_its_order_goes(tmp_path: Path) -> None:
    """Activities have no client order id, and may come before the order; legs and replacements have other ids."""
    messages = [
        _activity("o1"),
        _update("new", {"id": "o3", "replaces": "o2", "client_order_id": "auto"}),
        _update("replaced", {"id": "o2", "replaced_by": "o3", "replaces": "o1"}),
        {**ORDER, "legs": [{**ORDER, "id": "leg", "client_order_id": "auto"}], "client_order_id": "alpha:1"},
        _activity("leg"),
        _activity("stranger"),
    ]
    by_team(import_alpaca(_file(tmp_path / "f", messages), tmp_path / "data", team=None, teams=TEAMS))
    assert {"alpha": {"o1", "o2", "o3", "leg"}, "unassigned": {"stranger"}} == _orders(tmp_path / "data")


@pytest.mark.parametrize("uptime", [None, 1.0])
def test_an_order_that_a_ledger_knows_goes_there(
    uptime: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second recording continues the first; what is already known is not told to another team again.

    Also on a machine that has just started, whose clock is near its beginning.
    """
    if uptime is not None:
        monkeypatch.setattr("compactor.books.order_index.time.monotonic", lambda: uptime)
    import_alpaca(
        _file(tmp_path / "f", [_update("new", {"client_order_id": "alpha:1"})]),
        tmp_path / "data",
        team=None,
        teams=TEAMS,
    )
    import_alpaca(_file(tmp_path / "g", [_activity("o2")]), tmp_path / "data", team="beta")
    later = _file(tmp_path / "h", [_activity("o1"), _activity("o2")])
    result = by_team(import_alpaca(later, tmp_path / "data", team=None))
    assert {"alpha": {"o1"}, "beta": {"o2"}} == _orders(tmp_path / "data")
    assert (1, 0) == (result["alpha"].events_appended, result["beta"].events_appended)
    assert 1 == result["beta"].duplicates


def test_a_ledger_that_has_an_order_wins_over_what_the_order_is_called(tmp_path: Path) -> None:
    """Issue 4, 5: the ledger that knows the order comes first, or the same fills would stand in two ledgers."""
    data, file = tmp_path / "data", _file(tmp_path / "f", [{**ORDER, "client_order_id": "alpha:1"}, _activity("o1")])
    import_alpaca(_file(tmp_path / "g", [ORDER]), data, team="bravo")
    import_alpaca(file, data, team=None)
    assert {"bravo": {"o1"}} == _orders(data)


SPREAD = {"order_class": "mleg", "symbol": "", "side": "", "filled_qty": "1", "status": "filled", "limit_price": "1.2"}
LEGS = [
    {**ORDER, "id": f"leg-{side}", "symbol": f"AAPL241213C00{strike}000", "side": side, "qty": "1", "status": "filled"}
    | {"order_class": "mleg", "filled_qty": "1", "filled_avg_price": price, "type": "", "client_order_id": side}
    for side, strike, price in (("buy", "250", "0.43"), ("sell", "260", "0.01"))
]


@pytest.mark.parametrize("is_first", [True, False])
def test_activities_of_a_spread_are_those_of_its_legs(tmp_path: Path, is_first: bool) -> None:
    """Each leg has an activity that names the parent; each share counts once, in either order."""
    order = {**ORDER, **SPREAD, "legs": LEGS}
    activities = [
        {**_activity("o1"), "symbol": leg["symbol"], "side": leg["side"], "qty": "1", "cum_qty": "1", "id": leg["id"]}
        | {"price": leg["filled_avg_price"]}
        for leg in LEGS
    ]
    file = _file(tmp_path / "f", [order, activities] if is_first else [activities, order])
    for appended in (5, 0):
        done = by_team(import_alpaca(file, tmp_path / "data", team="alpha"))["alpha"]
        assert (appended, []) == (done.events_appended, done.problems)
        assert {"AAPL241213C00250000": 1, "AAPL241213C00260000": -1} == sum_positions(tmp_path / "data/team/alpha")
    assert {"leg-buy", "leg-sell"} == {row["order_id"] for row in Ledger(tmp_path / "data/team/alpha").rows("trades")}


def _tell_spread(event: str, number: str, previous: str | None = None) -> dict[str, Any]:
    """An update of a spread of 1 that is filled, with an execution of each leg."""
    order: dict[str, Any] = {**SPREAD, "qty": "1", "legs": LEGS}
    legs = [
        {"order_id": leg["id"], "execution_id": f"{leg['id']}-{number}", "symbol": leg["symbol"], "side": leg["side"]}
        | {"price": leg["filled_avg_price"], "qty": "1"}
        | ({} if previous is None else {"previous_execution_id": f"{leg['id']}-{previous}"})
        for leg in LEGS
    ]
    return _update(event, order, legs=legs, price="0.42", qty="1")


@pytest.mark.parametrize("event", ["trade_bust", "trade_correct"])
@pytest.mark.parametrize("are_legs_told", [True, False])
def test_a_revision_of_a_filled_spread_opens_none_of_its_legs(tmp_path: Path, event: str, are_legs_told: bool) -> None:
    """Rule 4.9: a bust does not reopen an order. Its legs, of which only the fill's executions told, stay filled."""
    revision = _tell_spread(event, "2", "1")
    if not are_legs_told:
        revision["data"]["order"]["legs"] = None
    file = _file(tmp_path / "f", [_tell_spread("fill", "1"), revision])
    done = by_team(import_alpaca(file, tmp_path / "data", team="alpha"))["alpha"]
    assert [] == done.problems
    ledger = Ledger(tmp_path / "data/team/alpha")
    assert [] == list(ledger.rows("pending_orders"))
    assert {"fill", "reversal"} <= {row["kind"] for row in ledger.rows("trades")}


def test_an_activity_that_fits_no_leg_of_a_spread_is_named(tmp_path: Path) -> None:
    """It cannot be said which leg was filled; the legs that are told by others are imported."""
    stranger = {**_activity("o1"), "symbol": "MSFT"}
    fill = {**_activity("o1"), "symbol": LEGS[0]["symbol"], "qty": "1", "cum_qty": "1", "id": "a-1"}
    file = _file(tmp_path / "f", [{**ORDER, **SPREAD, "legs": LEGS}, stranger, fill])
    done = by_team(import_alpaca(file, tmp_path / "data", team="alpha"))["alpha"]
    assert [(2, "bad_value")] == [(problem.line, problem.kind) for problem in done.problems]
    assert 4 == done.events_appended


def test_activities_are_sorted_before_they_are_appended(tmp_path: Path) -> None:
    """A list that is newest first tells of no late fill and of no gap."""
    newest = {**_activity("o1"), "qty": "60", "cum_qty": "100", "id": "a-2", "transaction_time": _time(2)}
    oldest = {**_activity("o1"), "qty": "40", "cum_qty": "40", "id": "a-1", "transaction_time": _time(3)}
    import_alpaca(_file(tmp_path / "f", [ORDER, [newest, oldest]]), tmp_path / "data", team="alpha")
    ledger = Ledger(tmp_path / "data/team/alpha")
    assert ["40", "60"] == [row["quantity"] for row in ledger.rows("trades")]
    assert [] == list(ledger.rows("findings"))


def test_activities_that_are_no_fills_are_counted(tmp_path: Path) -> None:
    """By type, in the team's result, with the line they stand on."""
    fees = [{"activity_type": "CFEE", "id": "1"}, {"activity_type": "DIV", "id": "2"}]
    done = by_team(import_alpaca(_file(tmp_path / "f", [*fees, fees]), tmp_path / "data", team="alpha"))["alpha"]
    assert ({"CFEE": 2, "DIV": 2}, 3, []) == (done.not_fills, done.lines_read, done.problems)


def test_a_directory_that_cannot_be_a_team_s_is_passed_over(tmp_path: Path) -> None:
    """Other programs keep directories beside those of teams."""
    strange = tmp_path / "data/team/no team"
    strange.mkdir(parents=True)
    (strange / "events.jsonl").write_text("what is this\n")
    result = import_alpaca(_file(tmp_path / "f", [ORDER]), tmp_path / "data", team=None)
    assert {} == result.moved
    assert 1 == by_team(result)["unassigned"].events_appended
    assert "what is this\n" == (strange / "events.jsonl").read_text()


def test_the_ledger_of_a_relative_wins_over_a_name(tmp_path: Path) -> None:
    """The order that it replaces is bravo's, whatever its own name says."""
    data = tmp_path / "data"
    import_alpaca(_file(tmp_path / "f", [ORDER]), data, team="bravo")
    later = {**ORDER, "id": "o2", "replaces": "o1", "client_order_id": "alpha:1"}
    import_alpaca(_file(tmp_path / "g", [later]), data, team=None, teams=TEAMS)
    assert {"bravo": {"o1", "o2"}} == _orders(data)


def test_relatives_that_only_the_log_tells_of_count(tmp_path: Path) -> None:
    """The parent of a leg is in bravo's log; the recording has the leg's fill alone."""
    data = tmp_path / "data"
    parent = {"event": "new", "order_id": "o1", "ts": T, "replaced_by": "o2"}
    Ledger(data / "team/bravo").append([parent])
    import_alpaca(_file(tmp_path / "f", [_activity("o2")]), data, team=None)
    assert {"bravo": {"o1", "o2"}} == _orders(data)


def test_an_order_of_two_ledgers_is_named_once(tmp_path: Path) -> None:
    """However many messages tell of it."""
    data = tmp_path / "data"
    for name in ("bravo", "alpha"):
        Ledger(data / "team" / name).append([{"event": "new", "order_id": "o1", "ts": T}])
    messages = [_update("pending_cancel", {}), _update("canceled", {})]
    done = by_team(import_alpaca(_file(tmp_path / "f", messages), data, team=None))
    assert ["contested"] == [problem.kind for problem in done["bravo"].problems]


def test_a_directory_that_is_a_ledger_takes_all(tmp_path: Path) -> None:
    """Rule 1.2: a person with one account needs no teams."""
    Ledger(tmp_path / "data").append([{"event": "new", "order_id": "o0", "ts": T, "team_id": "me"}])
    import_alpaca(
        _file(tmp_path / "f", [_update("new", {"client_order_id": "alpha:1"})]),
        tmp_path / "data",
        team=None,
        teams=TEAMS,
    )
    assert {"events.jsonl", "pending_orders.jsonl"} == set(read_files(tmp_path / "data"))
    assert ["o1"] == [
        order["order_id"] for order in Ledger(tmp_path / "data").rows("pending_orders") if order.get("symbol")
    ]


def test_what_is_no_message_is_reported_with_its_line(tmp_path: Path) -> None:
    """Bad lines never stop the lines after them; values that no log takes are told as well."""
    broken = _update("fill", {"id": "o2"}, price="ten", qty="1", execution_id="e")
    (tmp_path / "f").write_text("<html>\n\n" + json.dumps(broken) + "\n" + json.dumps(_update("new", {})) + "\n")
    team = by_team(import_alpaca(tmp_path / "f", tmp_path / "data", team="alpha"))["alpha"]
    assert [(1, "not_json"), (3, "bad_value")] == [(problem.line, problem.kind) for problem in team.problems]
    assert str(team.problems[0]).startswith(f"{tmp_path / 'f'}:1: not_json: ")
    assert (3, 1) == (team.lines_read, team.events_appended)


@pytest.mark.parametrize(
    "line",
    [
        "> APCA-API-SECRET-KEY: Sesame0123456789",
        "> apca-api-key-id: Sesame0123456789",
        '{"headers": {"APCA-API-KEY-ID": "Sesame0123456789"}, "body": {"x": 1}}',
        "INFO key_id='Sesame0123456789' APCA_API_KEY_ID=Sesame0123456789",
        "< authorization: Basic Sesame0123456789",
        "ALPACA_SECRET_KEY=Sesame0123456789",
        '{"secret":"Sesame0123456789","action":"auth","key":"PK',
        '{"headers": {"APCA-API-SECRET-KEY": "Sesame0123456789"}, "body": {"x": 1}}',
        '"https://PK:Sesame0123456789@api.alpaca.markets/v2/orders"',
        "INFO headers={'APCA-API-SECRET-KEY': 'Sesame0123456789'}",
        json.dumps({"a": json.dumps({"secret_key": "Sesame0123456789"})}),
        '{"action": "auth", "key": "PK", "secret": "Sesame0123456789"}',
        json.dumps({"request": {"headers": {"APCA-API-SECRET-KEY": "Sesame0123456789"}}, "response": ORDER}),
    ],
)
def test_a_secret_in_a_recording_is_neither_shown_nor_kept(tmp_path: Path, line: str) -> None:
    """Of `curl -v`, of an HTTP client's log, of what a program sent to the stream, whole or torn."""
    (tmp_path / "f").write_text(line + "\n" + json.dumps(_update("new", {})) + "\n")
    team = by_team(import_alpaca(tmp_path / "f", tmp_path / "data", team="alpha"))["alpha"]
    assert "Sesame" not in "".join(map(str, team.problems))
    assert b"Sesame" not in b"".join(read_files(tmp_path / "data").values())
    assert team.events_appended


def test_a_bad_line_without_a_team_is_reported_and_costs_nothing(tmp_path: Path) -> None:
    """No team is given and the line tells none: it is named under `unassigned`, and the other teams are imported."""
    lines = ["<html>", json.dumps(_update("new", {"client_order_id": "alpha:1"})), '{"event": "new"}']
    (tmp_path / "f").write_text("\n".join(lines))
    Ledger(tmp_path / "data/team/alpha").append([{"event": "new", "order_id": "o0", "ts": T}])
    teams = by_team(import_alpaca(tmp_path / "f", tmp_path / "data", team=None))
    assert (1, []) == (teams["alpha"].events_appended, teams["alpha"].problems)
    assert [(1, "not_json"), (3, "missing_field")] == [(one.line, one.kind) for one in teams["unassigned"].problems]
    assert not (tmp_path / "data/team/unassigned").exists()


def test_a_message_too_long_for_a_line_is_kept_without_its_raw_form(tmp_path: Path) -> None:
    """Section 2: a line has at most 1 MiB; `raw` is the part that means nothing."""
    message = _update("new", {"unknown": "x" * (1 << 20)})
    assert (
        []
        == by_team(import_alpaca(_file(tmp_path / "f", [message]), tmp_path / "data", team="alpha"))["alpha"].problems
    )
    [line] = (tmp_path / "data/team/alpha/events.jsonl").read_text().splitlines()
    assert "raw" not in json.loads(line)


def test_a_ledger_that_fails_does_not_stop_another(tmp_path: Path) -> None:
    """Teams are independent: a broken ledger is named, and the others have their events."""
    (tmp_path / "data/team/alpha").mkdir(parents=True)
    (tmp_path / "data/team/alpha/trades.jsonl").write_text("not ours\n")
    messages = [_update("new", {"id": team, "client_order_id": f"{team}:1"}) for team in ("alpha", "beta")]
    result = import_alpaca(_file(tmp_path / "f", messages), tmp_path / "data", team=None, teams=TEAMS)
    errors = {team.team_id: team.error.kind if team.error else None for team in result.teams}
    assert {"alpha": "derived_conflict", "beta": None} == errors
    assert ["beta"] == [order["order_id"] for order in Ledger(tmp_path / "data/team/beta").rows("pending_orders")]


def test_a_team_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    """Rule 1.1: refused before a path is built from it."""
    with pytest.raises(BadTeam):
        import_alpaca(_file(tmp_path / "f", []), tmp_path / "data", team="../beta")


def test_progress_is_told_in_bytes(tmp_path: Path) -> None:
    """A long import is not silent, and what it tells only grows."""
    told: list[tuple[int, int]] = []
    file = _file(tmp_path / "f", [_update("new", {"id": f"o{number}"}) for number in range(2000)])
    import_alpaca(file, tmp_path / "data", team="alpha", progress=lambda *now: told.append(now))
    assert told == sorted(told)
    assert told[-1][0] > file.stat().st_size
    assert {2 * file.stat().st_size} == {total for _, total in told}


def test_progress_counts_the_log_that_is_looked_through(tmp_path: Path) -> None:
    """A second import reads what is there; the whole is told as done at the end."""
    file = _file(tmp_path / "f", [_update("new", {"id": f"o{number}"}) for number in range(500)])
    import_alpaca(file, tmp_path / "data", team="alpha")
    told: list[tuple[int, int]] = []
    import_alpaca(file, tmp_path / "data", team="alpha", progress=lambda *now: told.append(now))
    total = 2 * file.stat().st_size + (tmp_path / "data/team/alpha/events.jsonl").stat().st_size
    assert {total} == {of for _, of in told}
    assert told[-1][0] > total - (1 << 16)


def test_a_message_that_a_recording_has_twice_is_appended_once(tmp_path: Path) -> None:
    """Two programs may have recorded the same stream."""
    done = by_team(import_alpaca(_file(tmp_path / "f", [ORDER, _update("new", {}), ORDER]), tmp_path / "d", team="a"))
    assert (2, 1) == (done["a"].events_appended, done["a"].duplicates)
    log = (tmp_path / "d/team/a/events.jsonl").read_text()
    assert 2 == log.count("\n")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(REAL), JSON), min_size=1, max_size=4), st.data())
def test_nothing_is_written_that_the_fold_refuses(parts: list[tuple[Any, Any]], data: st.DataObject) -> None:
    """Whatever a recording holds: each line of the log is an event, and what cannot be one is a problem."""
    messages = [replace_part(message, strange, data) for message, strange in parts]
    with TemporaryDirectory() as directory:
        home = Path(directory)
        by_team(import_alpaca(_file(home / "f", messages), home / "data", team="alpha"))
        ledger = Ledger(home / "data/team/alpha")
        assert [] == [row for row in ledger.rows("findings") if not row["applied"]]


# Any order life, told by any mixture of channels.


QUANTITIES = st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=4)
LIFE = st.tuples(st.sampled_from(["AAPL", "LTC/USD"]), st.sampled_from(["buy", "sell"]), QUANTITIES, st.booleans())


def _told_by_all_channels(number: int, life: tuple[str, str, list[int], bool]) -> list[Any]:
    """An order's life three times: as frames, as orders asked for by REST after each step, and as FILL activities."""
    symbol, side, quantities, ends_canceled = life
    ordered = sum(quantities) + (10 if ends_canceled else 0)
    order = {**ORDER, "id": f"o{number}", "client_order_id": f"alpha:{number}", "symbol": symbol, "side": side}
    order |= {"qty": str(ordered)}
    messages = [_at(0, _update("new", order, execution_id=f"ack-{number}")), {**order, "updated_at": _time(0)}]
    filled, cost = 0, Decimal(0)
    for step, quantity in enumerate(quantities, 1):
        price = Decimal(10 + step)
        filled, cost = filled + quantity, cost + price * quantity
        is_last = filled == ordered
        order |= {"filled_qty": str(filled), "filled_avg_price": f"{cost / filled:.9f}"}
        order |= {"status": "filled" if is_last else "partially_filled", "updated_at": _time(step, 5)}
        fill = {"price": str(price), "qty": str(quantity)}
        name = "fill" if is_last else "partial_fill"
        messages.append(_at(step, _update(name, order, execution_id=f"e-{number}-{step}", **fill)))
        messages.append(dict(order))
        told = {"symbol": symbol, "side": side, "cum_qty": str(filled), "order_status": order["status"], "type": name}
        messages.append(
            {**_activity(f"o{number}"), **fill, **told, "id": f"a-{number}-{step}", "transaction_time": _time(step)}
        )
    if ends_canceled:
        order |= {"status": "canceled", "updated_at": _time(9, 5), "canceled_at": _time(9)}
        messages += [_at(9, _update("canceled", order)), dict(order)]
    return messages


def _at(step: int, frame: dict[str, Any]) -> dict[str, Any]:
    frame["data"]["timestamp"] = _time(step)
    return frame


def _time(step: int, milliseconds: int = 0) -> str:
    return f"2026-03-02T14:30:{step:02d}.{milliseconds:03d}Z"


@settings(max_examples=40, deadline=None)
@given(st.lists(LIFE, min_size=1, max_size=2), st.data())
def test_any_mixture_of_channels_gives_the_same_position(
    lives: list[tuple[str, str, list[int], bool]], data: st.DataObject
) -> None:
    """Rules 4.2, 4.3, 4.7 and 4.8: frames, orders and activities in any order are the same executions, each once."""
    messages = [message for number, life in enumerate(lives) for message in _told_by_all_channels(number, life)]
    messages = data.draw(st.permutations(messages))
    expected: dict[str, Decimal] = {}
    for symbol, side, quantities, _ in lives:
        net = sum(quantities) * (1 if side == "buy" else -1)
        expected[symbol] = expected.get(symbol, Decimal(0)) + net
    with TemporaryDirectory() as directory:
        home = Path(directory)
        cut = data.draw(st.integers(min_value=0, max_value=len(messages)))
        for part in (messages[:cut], messages[cut:]):
            by_team(import_alpaca(_file(home / "captured.jsonl", part), home / "data", team=None))
        # A fill that comes before anything tells its team is unassigned, and what follows goes to its order there.
        assert expected == sum_positions(*(home / "data/team").iterdir())
        assert [] == list(Ledger(home / "data/team/alpha").rows("pending_orders"))


def test_a_line_of_another_team_in_a_log_makes_no_event_known(tmp_path: Path) -> None:
    """1.1: bravo's line lies in alpha's log by mistake; what it tells is still new to bravo."""
    data, message = tmp_path / "data", _update("new", {}, event_id="e-1")
    import_alpaca(_file(tmp_path / "f", [message]), data, team="bravo")
    line = (data / "team/bravo/events.jsonl").read_bytes()
    (data / "team/alpha").mkdir()
    (data / "team/alpha/events.jsonl").write_bytes(line)
    (data / "team/bravo/events.jsonl").write_text(json.dumps({"event": "held", "order_id": "o1", "ts": T}) + "\n")
    import_alpaca(_file(tmp_path / "f", [message]), data, team=None)
    assert "new" in (data / "team/bravo/events.jsonl").read_text()


@pytest.mark.parametrize("team", [None, "alpha"])
def test_a_team_gets_no_order_by_naming_it(tmp_path: Path, team: str | None) -> None:
    """4.12: only `assigned` moves an order; an import that says otherwise tells so, and moves nothing."""
    data = tmp_path / "data"
    for name in ("bravo", "alpha"):
        Ledger(data / "team" / name).append([{"event": "new", "order_id": "o1", "ts": T}])
    done = by_team(import_alpaca(_file(tmp_path / "f", [_update("canceled", {})]), data, team=team))
    [problem] = done[team or "bravo"].problems
    assert ("contested", 1) == (problem.kind, problem.line)
    assert "canceled" not in (data / "team/alpha/events.jsonl").read_text()
    assert (team is None) == ("canceled" in (data / "team/bravo/events.jsonl").read_text())


def test_an_order_that_is_named_another_team_s_is_not_imported_for_one(tmp_path: Path) -> None:
    """A team that has a ledger is one; what only looks like a team keeps nothing out."""
    data = tmp_path / "data"
    Ledger(data / "team/bravo").append([{"event": "new", "order_id": "o0", "ts": T}])
    names = {"o1": "bravo:1", "o2": "strat:1", "o3": "alpha:1"}
    messages = [_update("new", {"id": one, "client_order_id": name}) for one, name in names.items()]
    done = by_team(import_alpaca(_file(tmp_path / "f", messages), data, team="alpha"))
    assert ["contested"] == [problem.kind for problem in done["alpha"].problems]
    assert {"bravo": {"o0"}, "alpha": {"o2", "o3"}} == _orders(data)


def test_one_recording_after_another_brings_orders_together(tmp_path: Path) -> None:
    """Issue 12, 5: exits that were told before their entry are unassigned, and move when it is told."""
    data = tmp_path / "data"
    leg = {**ORDER, "id": "o2", "client_order_id": "random", "side": "sell", "status": "held"}
    import_alpaca(_file(tmp_path / "f", [_update("held", leg)]), data, team=None, teams=TEAMS)
    assert {"unassigned": {"o2"}} == _orders(data)
    entry = {**ORDER, "client_order_id": "alpha:1", "legs": [leg]}
    result = import_alpaca(_file(tmp_path / "g", [entry]), data, team=None, teams=TEAMS)
    assert {"o2": "alpha"} == result.moved
    assert ["o1", "o2"] == sorted(row["order_id"] for row in Ledger(data / "team/alpha").rows("pending_orders"))
    assert [] == list(Ledger(data / "team/unassigned").rows("pending_orders"))


@pytest.mark.parametrize("is_backwards", [True, False])
def test_a_chain_is_one_team_s_in_either_order(tmp_path: Path, is_backwards: bool) -> None:
    """Issue 12, 5: only the first of four orders has a name that says whose it is."""
    names = ["alpha:first", "c1", "c2", "c3"]
    orders = [{"id": f"o{number}", "client_order_id": name} for number, name in enumerate(names)]
    messages = [_update("new", orders[0])]
    for before, after in itertools.pairwise(orders):
        messages += [_update("replaced", {**before, "replaced_by": after["id"]}), _update("new", after)]
    data = tmp_path / "data"
    import_alpaca(_file(tmp_path / "f", messages[::-1] if is_backwards else messages), data, team=None, teams=TEAMS)
    assert {"alpha": {"o0", "o1", "o2", "o3"}} == _orders(data)


def test_client_ids_that_hold_a_time_make_no_ledgers(tmp_path: Path) -> None:
    """Issue 12, 5: `strat02_bL_2019-03-04T20:57` names no team."""
    times = [f"strat02_bL_2019-03-04T{hour}:57:31.633665+00:00" for hour in (20, 21, 22)]
    messages = [_update("new", {"id": name, "client_order_id": name}) for name in times]
    import_alpaca(_file(tmp_path / "f", messages), tmp_path / "data", team=None)
    assert {"unassigned": set(times)} == _orders(tmp_path / "data")


def _told_twice(price: str, **activity: Any) -> list[Any]:
    """An execution by the stream, and by an activity whose id ends in the stream's."""
    filled = {"status": "filled", "filled_qty": "100", "filled_avg_price": "31.5999"}
    fill = _update("fill", filled, execution_id="e-1", price="31.5999", qty="100")
    return [fill, {**_activity("o1"), "id": "20260302093000000::e-1", "price": price, **activity}]


@pytest.mark.parametrize("is_backwards", [False, True])
@pytest.mark.parametrize("is_apart", [False, True])
def test_an_activity_that_ends_in_an_execution_s_id_is_that_execution(
    tmp_path: Path, is_backwards: bool, is_apart: bool
) -> None:
    """One of the two rounds its price: what came first stands, and the other is named."""
    messages = _told_twice("31.6")[:: -1 if is_backwards else 1]
    for part in [[one] for one in messages] if is_apart and not is_backwards else [messages]:
        import_alpaca(_file(tmp_path / "f", part), tmp_path / "data", team="alpha")
    ledger = Ledger(tmp_path / "data/team/alpha")
    assert ["100"] == [row["quantity"] for row in ledger.rows("trades")]
    assert ["conflicting_fill"] == [row["kind"] for row in ledger.rows("findings")]


@pytest.mark.parametrize(
    ("activity", "quantities", "findings"),
    [
        ({}, ["100"], []),
        ({"cum_qty": None}, ["100"], []),
        ({"order_id": "o2", "price": "31.6"}, ["100", "100"], []),
        ({"id": "20260302093000000::e-2", "price": "31.6"}, ["100", "100"], ["late_fill", "overfill"]),
    ],
    ids=["the same numbers", "without a sum", "of another order", "of another execution"],
)
def test_the_half_of_an_activity_s_id_counts_for_its_own_order_alone(
    tmp_path: Path, activity: dict[str, Any], quantities: list[str], findings: list[str]
) -> None:
    """Where the numbers are the same, nothing relies on it."""
    messages = _told_twice(activity.pop("price", "31.5999"), **activity)
    import_alpaca(_file(tmp_path / "f", messages), tmp_path / "data", team="alpha")
    ledger = Ledger(tmp_path / "data/team/alpha")
    assert quantities == [row["quantity"] for row in ledger.rows("trades")]
    assert findings == [row["kind"] for row in ledger.rows("findings")]
