"""What the ledgers together know: which orders are where, and which have been assigned away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger
from compactor.books.ownership import claim_of, holder_of, owner_of
from compactor.sync import knowledge
from compactor.sync.knowledge import AwayReader, Knowledge
from compactor.sync.plan import Answers

Write = Callable[..., Path]
Event = Callable[..., dict[str, Any]]


def assigned(order_id: str = "o1", number: int = 0, **direction: str) -> dict[str, Any]:
    event_id = f"assigned:{number}"
    return {"event": "assigned", "order_id": order_id, "ts": "2026-01-05T16:00:00Z", "event_id": event_id, **direction}


def test_away_is_what_the_last_assignment_says(data: Path, write_log: Write, placed: Event) -> None:
    """4.12: only the direction counts; the same delivery again says nothing."""
    path = write_log("alpha", placed(), assigned(to_team="bravo"), assigned("o2", to_team="charlie"))
    ledgers, reader = {"alpha": Ledger(path)}, AwayReader()
    assert {"alpha": {"o1": "bravo", "o2": "charlie"}} == reader.read(ledgers)

    write_log("alpha", assigned(number=1, from_team="bravo"), assigned(to_team="bravo"))
    assert {"alpha": {"o2": "charlie"}} == reader.read(ledgers) == AwayReader().read(ledgers)


def test_only_what_a_log_has_grown_by_is_read(
    data: Path, write_log: Write, placed: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reconcile of a log of gigabytes costs what is new in it."""
    path = write_log("alpha", placed(), assigned(to_team="bravo"))
    ledger, reader = Ledger(path), AwayReader()
    reader.read({"alpha": ledger})
    starts: list[int] = []
    real = Ledger.cat

    def cat(self: Ledger, start: int = 0) -> Iterator[bytes]:
        starts.append(start)
        return real(self, start)

    monkeypatch.setattr(Ledger, "cat", cat)
    reader.read({"alpha": ledger})
    assert [(path / "events.jsonl").stat().st_size] == starts


def test_an_assignment_is_found_however_the_log_is_read(data: Path, write_log: Write, placed: Event) -> None:
    """1.5: also behind a torn fragment, across the pieces in which a log is read, and not in another team's line."""
    filler = placed("filler", raw="x" * 700_000)
    path = write_log("alpha", filler, filler, assigned("o1", to_team="bravo"))
    with open(path / "events.jsonl", "a") as log:
        log.write('{"event":"new","order_id":"o-')
    write_log("alpha", assigned("o2", to_team="bravo"), {**assigned("o3", to_team="x"), "team_id": "zulu"}, filler)
    assert {"o1": "bravo", "o2": "bravo"} == AwayReader().read({"alpha": Ledger(path)})["alpha"]


def test_the_holder_is_found_from_any_ledger_that_had_the_order() -> None:
    """4.12: an order may be moved on; a circle, which no two ledgers should make, ends somewhere."""
    away = {"alpha": {"o1": "bravo"}, "bravo": {"o1": "charlie"}, "charlie": {}}
    assert {"charlie"} == {holder_of("o1", team, away) for team in away}
    assert "alpha" == holder_of("o2", "alpha", away)
    assert holder_of("o1", "alpha", {"alpha": {"o1": "bravo"}, "bravo": {"o1": "alpha"}}) in ("alpha", "bravo")


@pytest.mark.parametrize("name", ["a:1", "alpha.b-c_d:x:y", "a:\n"])
def test_a_name_claims_its_team(name: str) -> None:
    """Issue 4, 5: `team_id:anything`."""
    assert name.partition(":")[0] == claim_of(name)
    assert name.partition(":")[0] == owner_of("o", {"o": {"client_order_id": name}}, {}, account_team="house")


@pytest.mark.parametrize("name", ["", ":1", "alpha", "alpha:", "../x:1", "-a:1", "a" * 65 + ":1", None, 7])
def test_what_is_no_team_claims_nothing(name: object) -> None:
    """1.1: a team id is checked before a path is built from it."""
    assert None is claim_of(name)
    assert "unassigned" == owner_of("o", {"o": {"client_order_id": name}}, {})


def test_what_a_ledger_has_comes_before_what_an_order_is_called() -> None:
    """Issue 4, 5: the order itself, what it replaces, its parent; and only then a name."""
    orders = {
        "leg": {"parent_order_id": "new", "client_order_id": "delta:1"},
        "new": {"replaces": "old", "client_order_id": "charlie:1"},
        "old": {"client_order_id": "bravo:1"},
    }
    assert ["alpha", "charlie"] == [owner_of("new", orders, known) for known in ({"old": "alpha"}, {})]
    assert ["alpha", "delta"] == [owner_of("leg", orders, known) for known in ({"old": "alpha"}, {})]
    assert "unassigned" == owner_of("a", {"a": {"replaces": "b"}, "b": {"replaces": "a"}}, {})


def test_a_log_that_cannot_know_an_order_is_not_searched(
    data: Path, write_log: Write, placed: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6.2: what a ledger remembers of ended orders says for certain which it never had."""
    path = write_log("alpha", placed("o1"), placed("o2", event="canceled"))
    with Ledger(path) as ledger:
        assert ledger.may_know("nobody")
        ledger.compact()
        assert [True, True, False] == [ledger.may_know(one) for one in ("o1", "o2", "nobody")]

        answers = Answers()
        order = {"id": "o9", "status": "new", "client_order_id": "c", "created_at": "2026-01-05T15:00:00Z"}
        answers.take([order])
        searched: list[Path] = []

        def known_events(path: Path, team: str, orders: set[str]) -> Iterator[Any]:
            searched.append(path)
            return iter(())

        monkeypatch.setattr(knowledge, "known_events", known_events)
        assert {"o1"} == Knowledge({"alpha": ledger}, {"alpha": {}}).of(answers).keys()
        assert [] == searched

        write_log("alpha", placed("o3"))
        assert ledger.may_know("nobody")
        Knowledge({"alpha": ledger}, {"alpha": {}}).of(answers)
        assert [path] == searched
