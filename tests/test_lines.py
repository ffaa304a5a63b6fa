"""One reading of a log: the team check, lines that are too long, repeated deliveries, and lines nobody wants."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactor.core.decoding import decode
from compactor.core.derived import Finding
from compactor.core.events import LINE_BYTES_MAX
from compactor.core.fold import Fold
from compactor.core.lines import Assignments, Block, Deliveries, EventReader, Placed
from tests.stories import damaged, order_lives, to_lines


def write(**fields: object) -> bytes:
    """One whole line."""
    return json.dumps({"event": "new", "order_id": "o-1", "ts": "2026-03-02T10:00:00Z", **fields}).encode() + b"\n"


def block_of(data: bytes, offset: int = 0) -> Block:
    return Block(offset, data, len(data))


class TestTeams:
    def test_an_event_of_another_team_is_a_finding(self) -> None:
        """Section 2: a `team_id` must be this ledger's."""
        log = write(team_id="bravo")
        ((found, data),) = EventReader("alpha").read_block(block_of(log))
        assert isinstance(found, Finding)
        assert ("wrong_team", 0, len(log), log[:-1]) == (found.kind, found.offset, found.length, data)

    def test_the_first_event_with_a_team_names_the_ledger(self) -> None:
        """1.2: what comes before it belongs to `default`, and no other team is taken after it."""
        reader = EventReader(None)
        log = write() + write(team_id="bravo") + write(team_id="alpha")
        kinds = []
        for offset, line in block_of(log).lines():
            kinds += [(type(found), reader.team_id) for found in reader.read_line(line, offset)]
        assert kinds == [(Placed, "default"), (Placed, "bravo"), (Finding, "bravo")]

    def test_a_fused_event_of_another_team_is_a_finding_of_its_own(self) -> None:
        """Section 5: the fragment, the event that counts and the one that does not are told apart."""
        line = write(team_id="alpha")[:-1] + write(team_id="bravo", order_id="o-2")[:-1]
        kinds = [
            found.kind if isinstance(found, Finding) else found.event.order_id
            for found in EventReader("alpha").read_line(line, 0)
        ]
        assert ["o-1", "fused_line", "wrong_team"] == kinds

    def test_a_finding_about_another_team_has_the_bytes_of_its_event(self) -> None:
        """Section 5: what could not be applied is there to be read, wherever in the line it stands."""
        other = write(team_id="bravo", order_id="o-2")[:-1]
        line = write(team_id="alpha")[:-1] + other
        found = list(EventReader("alpha").read_line(line, 1_000))[-1]
        assert isinstance(found, Finding)
        assert (other.decode(), 1_000 + len(line) - len(other)) == (found.line, found.offset)


def test_the_mark_before_a_text_is_no_torn_line() -> None:
    """What an editor on Windows puts before the first line is part of that line."""
    line = b"\xef\xbb\xbf" + write()
    ((found, data),) = EventReader("alpha").read_block(block_of(line + b""))
    assert isinstance(found, Placed)
    assert (0, len(line), line[:-1]) == (found.offset, found.length, data.rstrip(b"\n"))
    kinds = [type(found) for found in EventReader("alpha").read_line(b"\xef\xbbx" + write()[:-1], 0)]
    assert [Finding, Placed] == kinds


class TestHalfCharacters:
    """Section 2: writers in Python and JavaScript escape the halves that they cut a text into."""

    @pytest.mark.parametrize(
        ("text", "read"),
        [
            (r"\ud83d", "\ufffd"),
            (r"\uDE00", "\ufffd"),
            (r"a\ud83dA", "a\ufffdA"),
            (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
            (r"\ud83d\ude00", "\U0001f600"),
            (r"\\ud83d", r"\ud83d"),
            (r"\\\ud83d", "\\\ufffd"),
            (r"\ud83d\\", "\ufffd\\"),
        ],
    )
    def test_half_of_a_character_is_replaced_and_costs_no_event(self, text: str, read: str) -> None:
        """In a field, in one that nobody reads, and in `raw`; the line stays as long as it was."""
        line = write(client_order_id="MARK", note="MARK", raw={"a": ["MARK"]}).replace(b"MARK", text.encode())
        ((offset, found_line),) = block_of(line).lines()
        assert (0, len(line) - 1) == (offset, len(found_line))
        assert read == json.loads(found_line)["raw"]["a"][0]
        ((found, data),) = EventReader("alpha").read_block(block_of(line))
        assert isinstance(found, Placed)
        assert (read, found_line) == (found.event.client_order_id, data)
        fold = Fold("alpha", lambda *_: ())
        fold.feed(line, 0)
        lines = fold.take_lines()
        assert (b"", 1) == (lines.findings, len(fold.pending_lines().splitlines()))


class TestBlocks:
    def test_a_line_that_is_too_long_is_one_finding(self) -> None:
        """Section 5: of such a line only its beginning is kept."""
        ((found, data),) = EventReader("alpha").read_block(Block(7, b"begin", LINE_BYTES_MAX + 2))
        assert isinstance(found, Finding)
        assert ("too_long", 7, LINE_BYTES_MAX + 2, "begin", b"begin") == (
            found.kind, found.offset, found.length, found.line, data,
        )  # fmt: skip
        assert f"{LINE_BYTES_MAX + 1} bytes, expected at most {LINE_BYTES_MAX}" in found.detail

    def test_what_cannot_be_read_is_kept_whole(self) -> None:
        """Section 5: only of a line that is too long its beginning stands in the finding, 1,024 bytes of it."""
        for line, kept in [(b"x" * 3000, 3000), (b"x" * (LINE_BYTES_MAX + 1), 1024)]:
            ((found, data),) = EventReader("alpha").read_block(block_of(line + b"\n", 9))
            assert isinstance(found, Finding)
            assert (9, len(line) + 1, "x" * kept, line) == (found.offset, found.length, found.line, data)

    def test_lines_that_nobody_wants_are_left_out(self) -> None:
        """A glance at the order decides; what cannot be read at a glance is read."""
        lines = [write(), write(order_id="o-2"), b"torn\n", write(order_id="o-2", event="canceled"), write()]
        wanted = EventReader("alpha").read_block(block_of(b"".join(lines), 50), lambda glance: glance.order_id == "o-2")
        assert [lines[1][:-1], lines[2][:-1], lines[3][:-1]] == [data for _found, data in wanted]

    def test_lines_have_their_offsets(self) -> None:
        """1.5: the address of a line is the offset of its first byte."""
        assert (5, 8) == (block_of(b"ab\n", 5).offset, block_of(b"ab\n", 5).end)
        assert [(5, b"ab"), (8, b""), (9, b"c")] == list(block_of(b"ab\n\nc\n", 5).lines())
        assert [Block(5, b"ab\n", 3), Block(8, b"\n", 1)] == list(block_of(b"ab\n\n", 5).split())

    @given(st.data())
    def test_a_glance_loses_no_wanted_event(self, data: st.DataObject) -> None:
        """Leaving out lines that a caller does not want leaves out no event that it wants, however damaged the log."""
        log = data.draw(damaged(to_lines(data.draw(order_lives()))))
        every = [found for found, _ in EventReader("alpha").read_block(block_of(log)) if isinstance(found, Placed)]
        wanted = {found.event.order_id for found in every[::2]}
        some = EventReader("alpha").read_block(block_of(log), lambda glance: glance.order_id in wanted)
        assert [found for found in every if found.event.order_id in wanted] == [
            found for found, _ in some if isinstance(found, Placed) and found.event.order_id in wanted
        ]

    @given(st.data())
    def test_every_byte_is_an_event_or_a_finding(self, data: st.DataObject) -> None:
        """Section 5: events, findings that were not applied, and blank lines add up to the block."""
        log = data.draw(damaged(to_lines(data.draw(order_lives()))))
        found = [found for found, _ in EventReader("alpha").read_block(block_of(log))]
        counted = sum(one.length for one in found if isinstance(one, Placed) or not one.applied)
        assert len(log) == counted + sum(len(line) + 1 for _, line in block_of(log).lines() if not line.strip())
        fold = Fold("alpha", lambda *_: ())
        fold.feed(log, 0)
        assert fold.counts.events == sum(isinstance(one, Placed) for one in found)


class TestAssignments:
    def take(self, assignments: Assignments, **teams: str) -> str | None:
        event = decode(write(event="assigned", **teams)[:-1])
        assignments.take(event)  # type: ignore[arg-type]
        return assignments.away_to

    def test_an_order_is_where_it_went_last(self) -> None:
        """4.12: it can go on from team to team, and comes back from any."""
        one = Assignments()
        assert one.away_to is None
        went = [self.take(one, **{to: team}) for to, team in [("to_team", "b"), ("to_team", "c"), ("from_team", "b")]]
        assert ["b", "c", None] == went

    def test_it_comes_back_eight_times(self) -> None:
        """4.12: a `from_team` of an order that is here counts for nothing; the ninth return does not happen."""
        one = Assignments()
        for _ in range(8):
            assert self.take(one, from_team="b") is None and one.may_return
            assert self.take(one, to_team="b") == "b"
            assert self.take(one, from_team="b") is None
        assert not one.may_return
        assert ["b", "b", "c"] == [self.take(one, **{to: team}) for to, team in
                                   [("to_team", "b"), ("from_team", "b"), ("to_team", "c")]]  # fmt: skip


BUST = {"event": "trade_bust", "previous_execution_id": "x"}


class TestDeliveries:
    @pytest.mark.parametrize(
        ("first", "again", "is_new"),
        [
            ({"event_id": "e-1"}, {"event_id": "e-1"}, False),
            ({"event_id": "e-1"}, {"event_id": "e-2"}, True),
            ({"event_id": "e-1"}, {"event_id": "e-1", "event": "canceled"}, True),
            ({"event_id": "e-1"}, {"event_id": "e-1", "order_id": "o-2"}, True),
            ({}, {}, True),
            ({"event_id": "e-1", "execution_id": "x"}, {"event_id": "e-1", "execution_id": "x"}, False),
            ({"event_id": "e-1", "execution_id": "x"}, {"event_id": "e-1", "execution_id": "y"}, True),
            ({"event_id": "e-1", **BUST}, {"event_id": "e-1", **BUST}, False),
            ({"event_id": "e-1", **BUST}, {"event_id": "e-1", **BUST, "previous_execution_id": "y"}, True),
            (
                {"event_id": "e-1", "previous_execution_id": "x"},
                {"event_id": "e-1", "previous_execution_id": "y"},
                False,
            ),
        ],
    )
    def test_the_same_id_of_the_same_order_and_event_is_the_same_delivery(
        self, first: dict[str, str], again: dict[str, str], is_new: bool
    ) -> None:
        """Section 2: a second line of the same order, `event` and execution with the same `event_id` is a duplicate."""
        deliveries = Deliveries()
        one, two = decode(write(**first)[:-1]), decode(write(**again)[:-1])
        assert deliveries.note(one)  # type: ignore[arg-type]
        assert is_new is deliveries.note(two)  # type: ignore[arg-type]
