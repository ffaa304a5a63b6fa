"""Output is data: nothing that stands in a log or in a name steers a terminal or a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from compactor import Ledger
from compactor.core.printable import escape_json, printable, printable_lines, printable_text, redact
from compactor.tables.export import spreadsheet_safe
from compactor.ui.cli import app
from tests.conftest import ROOT

EVIL = "\x1b[2J\x1b]0;pwn\x07\x9b31m\x7f\u202eLLES\u2066\u200b\r\x08\x00\U000e0041"
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\U000e0041]")
JSON = ["--json"]
EXPORTED = ("trades", "pending", "events", "findings")
SGR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with such text in every field and in its findings, sealed, and a directory with such a name."""
    data = tmp_path_factory.mktemp("evil") / "data"
    ledger = data / "team/alpha"
    ledger.mkdir(parents=True)
    event = {
        "event": "new", "order_id": f"o{EVIL}", "ts": "2026-03-02T15:00:00Z", "symbol": f"S{EVIL}", "side": "buy",
        "quantity": "2", "client_order_id": f"c{EVIL}", "source": EVIL, "legs": [{"a": EVIL}], "raw": {EVIL: EVIL},
        "event_id": EVIL, "order_type": EVIL, "order_class": EVIL, "recorded_at": "2026-03-02T15:00:01Z",
    }  # fmt: skip
    fill = {**event, "event": "partial_fill", "execution_id": EVIL, "price": "1", "qty": "1", "legs": None}
    odd = {**event, "event": f"new{EVIL}", "order_status": EVIL, "legs": None}
    lines = [json.dumps(one, ensure_ascii=False) for one in (event, fill, odd)]
    lines += [
        f"no json {EVIL}".replace("\n", ""),
        '{"raw": "' + "\x9b" + '",\t"event": 1}\r',
        '{"team_id":"' + "\x9b" + '"}',
    ]
    (ledger / "events.jsonl").write_bytes("".join(line + "\n" for line in lines).encode() + b"\xff\x9b\x1b[2J\n")
    with Ledger(ledger) as opened:
        opened.compact()
        opened.seal(now=True)
    bad = data / "team" / f"x{EVIL}".replace("\0", "").replace("/", "")
    bad.mkdir()
    (bad / "events.jsonl").write_bytes(b"")
    return data


def on_a_terminal(data: Path, *commands: list[str]) -> str:
    """What one process prints that runs these commands with a terminal for output; messages without a progress bar."""
    code = (
        "import json, sys\nfrom compactor.ui.cli import app\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    print('##', ascii(arguments[:2]), flush=True)\n"
        "    try: app(arguments)\n"
        "    except SystemExit as end: print('exit', end.code, flush=True)\n"
    )
    shown, terminal = pty.openpty()
    messages = tempfile.TemporaryFile()  # noqa: SIM115
    process = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(commands)], stdin=subprocess.DEVNULL, stdout=terminal, stderr=messages,
        cwd=ROOT, env={**os.environ, "COMPACTOR_DATA": str(data), "COLUMNS": "200"},
    )  # fmt: skip
    os.close(terminal)
    pieces = []
    while True:
        try:
            piece = os.read(shown, 1 << 16)
        except OSError:
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(shown)
    process.wait()
    with messages:
        messages.seek(0)
        return b"".join(pieces).decode() + "## messages" + messages.read().decode()


def test_a_long_query_draws_no_progress_bar_of_the_database(books: Path) -> None:
    """It would steer the terminal, among the lines of the command."""
    found = on_a_terminal(books, ["sql", "select current_setting('enable_progress_bar') as bar"])
    assert "\r\nno \r\n" in found


def test_no_command_lets_data_steer_a_terminal(books: Path, tmp_path: Path) -> None:
    """Control, C1, invisible and bidirectional characters are written out, names of directories included."""
    order, data = f"o{EVIL}", str(books)
    text = on_a_terminal(
        books,
        *([name, data, *more] for name in ("compact", "status", "verify", "seal", "rebuild") for more in ([], JSON)),
        *(["show", what, *more] for what in ("pending", "trades", "findings") for more in ([], JSON)),
        *(["replay", data, "--team", "alpha", *more] for more in ([], ["--json"], ["--show", "findings"])),
        ["replay", data, "--team", "alpha", "--show", "findings", "--json"], ["replay", data],
        ["diff", "0", "end", "--team", "alpha"], ["diff", "0", "end", "--team", "alpha", "--json"],
        ["history", order, "--raw"], ["history", order, "--raw", "--json"], ["history", f"none{EVIL}"],
        *(["tail", *more] for more in ([], ["--findings"], ["--trades"], ["--json"], ["--findings", "--json"])),
        *(["export", what, "--format", form] for what in EXPORTED for form in ("csv", "jsonl")),
        ["export", "events", "--format", "csv", "--exact"],
        ["sql", "select * from events"], ["sql", "select * from findings", "--format", "csv"],
        ["sql", "select * from trades", "--json"], ["sql", "select order_id from events", "--format", "csv", "--exact"],
        ["sql", "select 1 as \"a\x1b[2J\x9b\""], ["sql", "select 1 as \"[red]x\""], ["sql", "\x1b[2J\u202e"],
        ["cat", data, "--team", "alpha"], ["cat", data], ["prove", "0", "--team", "alpha"],
        ["show", EVIL], [EVIL], ["--\x1b[2J"], ["status", EVIL.replace("\0", "")], ["show", "pending", "--team", EVIL],
        ["config", data], ["doctor", data], ["import", "alpaca", str(books / "team/alpha/events.jsonl")],
    )  # fmt: skip
    for block in text.split("##"):
        found = UNSAFE.findall(SGR.sub("", block.replace("\r\n", "\n")))
        assert [] == found, block[:2000]
    assert text.count("pwn") > 100, "the data are shown"
    assert "Traceback" not in text


def test_json_has_the_same_values(books: Path) -> None:
    """Only their notation is another one; also in a pipe."""
    result = CliRunner().invoke(app, ["export", "events", "--data", str(books), "--team", "alpha"])
    first = json.loads(result.stdout.splitlines()[0])
    assert (f"o{EVIL}", {EVIL: EVIL}) == (first["order_id"], first["raw"])
    shown = CliRunner().invoke(app, ["show", "pending", "--data", str(books), "--team", "alpha", "--json"])
    assert f"S{EVIL}" == json.loads(shown.stdout.splitlines()[0])["symbol"]


def test_cat_is_exact_in_a_pipe(books: Path) -> None:
    """`compactor cat` is how other programs read a log."""
    done = subprocess.run(
        [sys.executable, "-m", "compactor", "cat", str(books), "--team", "alpha"], cwd=ROOT, capture_output=True
    )
    assert 0 == done.returncode
    assert f"no json {EVIL}\n".encode() in done.stdout
    assert done.stdout.endswith(b"\xff\x9b\x1b[2J\n")


@pytest.mark.parametrize("on_terminal", [False, True])
def test_the_daemons_log_is_printable(on_terminal: bool) -> None:
    """Names of directories and texts of the broker, as JSON lines or for a terminal; a private key is hidden."""
    code = (
        "import sys\nfrom compactor.ui.watching import make_logger\n"
        f"sys.stderr.isatty = lambda: {on_terminal}\n"
        f"make_logger().info('ledger_degraded', team_id={EVIL!r}, reason='PRIVATE+KEY+a+b+secret')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "pwn" in done.stderr
    assert "secret" not in done.stderr
    assert [] == UNSAFE.findall(SGR.sub("", done.stderr))


@given(st.text())
def test_escaped_json_is_the_same_json(text: str) -> None:
    """Any text, in a string of JSON."""
    line = json.dumps({"a": text}, ensure_ascii=False).encode(errors="replace")
    assert json.loads(line) == json.loads(escape_json(line))
    assert not UNSAFE.search(escape_json(line).decode())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""), (True, "yes"), (False, "no"), (0, "0"), ("é €", "é €"), ("a\nb", r"a\nb"), ("\x1b[2J", r"\x1b[2J"),
        ("\x9b", r"\x9b"), ("\u202e", r"\u202e"), ("\U000e0041", r"\U000e0041"), ("\ud800", r"\ud800"),
    ],
)  # fmt: skip
def test_a_value_is_shown_in_one_line(value: object, shown: str) -> None:
    """A character that a terminal would obey is written as Python writes it; a truth is a word."""
    assert shown == printable(value)


def test_lines_stay_lines() -> None:
    """Data keeps its lines and its keys; a message hides the keys."""
    text = "one\n\x1btwo\tPRIVATE+KEY+a+b+c\n"
    assert "one\n\\x1btwo\\tPRIVATE+KEY+a+b+c\n" == printable_text(text)
    assert "one\n\\x1btwo\\tPRIVATE+KEY+(hidden)\n" == printable_lines(text)


def test_a_document_keeps_its_values() -> None:
    """A character beyond 16 bits is a pair of escapes in JSON; white space between values stays white space."""
    shown = b'{ "a": "\\u009b\\udb40\\udc41 ok" }\n'
    assert shown == escape_json('{\t"a":\r"\x9b\U000e0041 ok"\t}\n'.encode())
    assert "�" == escape_json(b"\xff").decode()


@given(st.text())
def test_printable_text_has_no_unsafe_character(text: str) -> None:
    """Nothing is lost: what is written out says which character it was."""
    assert not UNSAFE.search(printable(text))
    assert "\n" not in printable(text)
    assert printable(text) == text or UNSAFE.search(text) or len(printable(text)) > len(text)


def test_a_private_key_is_hidden() -> None:
    """Up to its end, wherever it stands."""
    key = "PRIVATE+KEY+example.org/desk+b1d1e9d2+AXlx/+="
    assert "/data/PRIVATE+KEY+(hidden) 'PRIVATE+KEY+(hidden)'" == redact(f"/data/{key} '{key}'")


def test_the_secret_of_a_key_of_the_api_is_hidden() -> None:
    """Its id stays, by which it can be revoked."""
    key = "ck_53fc24802601_Nt9AIhev1Hua1g8Ge3Bq8OuTki_S-Z166yaDsBROQAo"
    assert "/orders/ck_53fc24802601_(hidden)?" == redact(f"/orders/{key}?")
    assert "pick_up_5" == redact("pick_up_5")


class TestSpreadsheets:
    """CSV is safe to open in a spreadsheet, unless `--exact` asks for it as it is."""

    @pytest.mark.parametrize(
        "text",
        [
            "=1+1",
            "+1",
            "-a",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            " =1",
            "\uff1d1",
            "x;=1",
            "x\t=cmd|' /C calc'!A0",
            "a\n=1",
            "--1",
        ],
    )
    def test_no_cell_is_a_formula(self, text: str) -> None:
        """Neither at its beginning nor where a cell begins in another country."""
        safe = str(spreadsheet_safe(text))
        assert text == safe.replace("'", "", 1) if "'" not in text else safe != text
        for cell in re.split(r"[;\t\r\n]", safe):
            assert not re.match(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]", cell)

    @pytest.mark.parametrize(
        "value", ["-1", "-1.50", "1e-9", "SPY", "", None, 3, True, "2026-03-02T15:00:00-05:00", "a-b"]
    )
    def test_numbers_and_plain_texts_stay_as_they_are(self, value: object) -> None:
        """A reversal has a negative quantity."""
        assert value == spreadsheet_safe(value)

    @pytest.mark.parametrize(
        "arguments", [["export", "trades", "--format", "csv"], ["sql", "select * from trades", "--format", "csv"]]
    )
    def test_export_and_sql(self, tmp_path: Path, arguments: list[str]) -> None:
        """The symbol of a fill is a formula."""
        ledger = tmp_path / "team/alpha"
        ledger.mkdir(parents=True)
        formula = '=HYPERLINK("http://evil","x")'
        event = {
            "event": "fill", "order_id": "-o", "ts": "2026-03-02T15:00:00Z", "symbol": formula, "side": "buy",
            "quantity": "1", "price": "-1.5", "qty": "1", "execution_id": "x",
        }  # fmt: skip
        (ledger / "events.jsonl").write_text(json.dumps(event) + "\n")
        Ledger(ledger).compact()
        for more, expected in (([], ("'" + formula, "'-o")), (["--exact"], (formula, "-o"))):
            result = CliRunner().invoke(app, [*arguments, *more, "--format", "csv", "--data", str(tmp_path)])
            (row,) = csv.DictReader(io.StringIO(result.stdout))
            assert expected == (row["symbol"], row["order_id"])
            assert "-1.5" == row["execution_price"]
