"""Reading recordings: whatever form people keep messages in, each comes out once, with the line on which it begins."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactor.core.events import LINE_BYTES_MAX, NESTING_MAX, Problem
from compactor.imports.recordings import VALUE_BYTES_MAX, BadRecording, read_recording

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def _read(data: bytes) -> list[tuple[int, Any]]:
    """What a file of these bytes gives; a problem is its kind."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "recording"
        path.write_bytes(data)
        found = [(line, value) for line, value in read_recording(path)]
    return [(line, value.kind if isinstance(value, Problem) else value) for line, value in found]


def _values(data: bytes) -> list[Any]:
    flat: list[Any] = []
    for _, value in _read(data):
        flat += value if isinstance(value, list) else [value]
    return flat


def _lines(values: list[Any]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


FORMS: dict[str, Callable[[list[Any]], bytes]] = {
    "lines": lambda values: _lines(values).encode(),
    "lines of windows": lambda values: _lines(values).replace("\n", "\r\n").encode(),
    "no last line end": lambda values: _lines(values).encode().removesuffix(b"\n"),
    "one array": lambda values: json.dumps(values).encode(),
    "pretty array": lambda values: json.dumps(values, indent=2).encode(),
    "pretty values": lambda values: "".join(json.dumps(value, indent=4) + "\n" for value in values).encode(),
    "an array with an element per line": lambda values: ("[\n" + ",\n".join(map(json.dumps, values)) + "\n]").encode(),
    "arrays after one another": lambda values: "".join(json.dumps([value]) for value in values).encode(),
    "values after one another": lambda values: "".join(json.dumps(value) for value in values).encode(),
    "server-sent events": lambda values: (
        ": welcome\n\n" + "".join(f"id: 1\nevent: x\ndata: {json.dumps(v)}\n\n: heartbeat\n" for v in values)
    ).encode(),
    "server-sent events over lines": lambda values: "".join(
        "".join(f"data: {line}\n" for line in json.dumps(v, indent=1).split("\n")) + "\n" for v in values
    ).encode(),
    "server-sent events without a blank": lambda values: "".join(
        "".join(f"data:{line}\n" for line in json.dumps(v, indent=indent).split("\n")) + "\n"
        for indent, v in zip([0, None] * 2, values, strict=False)
    ).encode(),
    "byte order mark": lambda values: b"\xef\xbb\xbf" + _lines(values).encode(),
    "utf-16": lambda values: _lines(values).encode("utf-16"),
    "gzip": lambda values: gzip.compress(_lines(values).encode()),
    "gzip in two": lambda values: (
        gzip.compress(_lines(values[:1]).encode()) + gzip.compress(_lines(values[1:]).encode())
    ),
    "printed by Python": lambda values: "".join(f"{value!r}\n" for value in values).encode(),
    "behind a time and a level": lambda values: "".join(
        f"2026-03-02 14:30:00,123 [INFO] stream: {json.dumps(value)}\n" for value in values
    ).encode(),
    "bytes printed by Python": lambda values: "".join(f"b'{json.dumps(value)}'\n" for value in values).encode(),
    "zstd": lambda values: zstd.compress(_lines(values).encode()),
    "zstd in two": lambda values: (
        zstd.compress(_lines(values[:1]).encode()) + zstd.compress(_lines(values[1:]).encode())
    ),
}
TEXTS = st.text(max_size=6) | st.sampled_from(['a"b', "\\", "[{", "}]", "\u2028", "data:", "é"])
NAMES = TEXTS.filter(lambda name: "'" not in name)
"""Of fields: Python prints another quote around a name with a quote in it, and no program has such a one."""
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.dictionaries(NAMES, JSON, max_size=3), max_size=4))
def test_every_form_gives_the_same_values(form: str, values: list[Any]) -> None:
    """What was recorded does not depend on how it was kept."""
    assert values == _values(FORMS[form](values))


@given(st.binary(max_size=80) | st.text(alphabet='{}[]:,"a1\n -', max_size=40).map(str.encode))
def test_no_bytes_make_reading_raise(data: bytes) -> None:
    """Bad data is a value; only a file of another format is refused as a whole."""
    try:
        _read(data)
    except BadRecording:
        assert data.startswith((b"PK", b"\xfd7z", b"BZh")) or data.splitlines()[0].count(b",") >= 2


@given(st.lists(st.integers(), min_size=1, max_size=4), st.data())
def test_a_torn_line_costs_nothing_but_itself(numbers: list[int], data: st.DataObject) -> None:
    """A crash cuts one line anywhere; the lines before and after it are read."""
    lines = [json.dumps({"n": number, "legs": [{"x": "y"}]}) for number in numbers]
    torn = lines[0][: data.draw(st.integers(1, len(lines[0]) - 1))]
    at = data.draw(st.integers(0, len(lines)))
    found = _read("\n".join([*lines[:at], torn, *lines[at:]]).encode())
    expected = [(n + 1 + (n >= at), json.loads(line)) for n, line in enumerate(lines)]
    assert [(at + 1, "not_json")] == [one for one in found if one not in expected]
    assert expected == [one for one in found if one in expected]


def test_a_bad_value_over_several_lines_is_one_problem() -> None:
    """`NaN` in one order of a pretty-printed list: one problem, and the other orders are read."""
    orders = [{"id": "a", "price": float("nan"), "legs": [{"id": "leg"}]}, {"id": "b"}]
    [(line, kind), other] = _read(json.dumps(orders, indent=2).encode())
    assert ((2, "not_json"), {"id": "b"}) == ((line, kind), other[1])


def test_nan_is_named(tmp_path: Path) -> None:
    """What is wrong is said in words that can be looked for."""
    (tmp_path / "f").write_text('{"a": NaN}\n')
    [found] = read_recording(tmp_path / "f")
    assert "found NaN, which is not JSON; expected a number or null" in found.value.detail


def test_an_array_that_was_cut_off_is_named() -> None:
    """The elements before the cut are read; that others may be missing is said."""
    assert [(1, {"a": 1}), (1, {"b": 2}), (1, "not_json")] == _read(b'[{"a": 1}, {"b": 2}')
    assert [(2, {"a": 1}), (1, "not_json")] == _read(b'[\n{"a": 1},\n')
    assert [(2, "not_json"), (3, {"b": 1}), (1, "not_json")] == _read(b'[\n{"a": NaN},\n{"b": 1},\n')


@pytest.mark.parametrize("text", ["[DONE]", "[INFO] connected", "[2026-03-02 14:30:00] started"])
def test_a_bracket_before_text_begins_no_array(text: str) -> None:
    """The end of a stream of a tool, and the level of a logger: one problem, and nothing is said to be cut off."""
    assert [(1, "not_json"), (2, {"a": 1})] == _read(f'{text}\n{{"a": 1}}\n'.encode())


@pytest.mark.parametrize("text", ["[DONE]", "[INFO] connected"])
def test_a_bracket_before_text_inside_an_array_begins_none(text: str) -> None:
    """A logger wrote between the elements: the array ends where its own bracket closes it."""
    assert [(2, {"a": 1}), (3, "not_json"), (4, {"b": 2})] == _read(f'[\n{{"a": 1}},\n{text}\n{{"b": 2}}\n]\n'.encode())


TORN = ['{"stream": "x", "data": {"id": "o-', '{"id": "o-1", "qty": "1', '{"id": "o-1", "legs": [{"id": 1}', '{"a', "{"]


@pytest.mark.parametrize("torn", TORN)
def test_a_message_behind_a_torn_one_is_read(torn: str) -> None:
    """A program died while it wrote; the next one wrote on in the same line."""
    for whole in ({"stream": "trade_updates", "data": {"order": {"id": "o-2"}}}, {"id": "o-2", "legs": [{"id": "l"}]}):
        found = _read(f'{torn}{json.dumps(whole)}\n{{"b": 2}}\n'.encode())
        assert [(1, "not_json"), (1, whole), (2, {"b": 2})] == found


@pytest.mark.parametrize("torn", ['{"event": "new", "order": {"id": "o-1"}', '{"legs": [{"id": 1}, {"id": 2}'])
def test_a_part_of_a_torn_message_is_no_message(torn: str) -> None:
    """The order inside an update whose last brace is missing is not what the broker said of that order."""
    assert [(1, "not_json"), (2, {"b": 2})] == _read(f'{torn}\n{{"b": 2}}\n'.encode())


def test_a_comment_about_dropped_messages_is_named() -> None:
    """Alpaca says in a comment that it dropped messages; heartbeats say nothing."""
    found = _read(b': heartbeat\n: you are reading too slowly, dropped 3 messages\ndata: {"a": 1}\n')
    assert [(2, "messages_dropped"), (3, {"a": 1})] == found


def test_a_value_that_does_not_end_is_given_up() -> None:
    """A brace that is never closed does not swallow the rest of the file."""
    line = b'"k": "' + b"x" * 1000 + b'",\n'
    found = _read(b"{\n" + line * (VALUE_BYTES_MAX // len(line) + 10) + b'}\n{"a": 1}\n')
    assert (1, "not_json") == found[0]
    assert {"a": 1} == found[-1][1]


def test_a_value_that_is_given_up_is_so_at_its_limit(tmp_path: Path) -> None:
    """The rest of a long file is not held in memory for it: twice what a line of a log may have at most."""
    assert 2 * LINE_BYTES_MAX == VALUE_BYTES_MAX
    (tmp_path / "f").write_bytes(b"{\n" + b'  "k": "x",\n' * (VALUE_BYTES_MAX // 12 + 10))
    found = next(read_recording(tmp_path / "f"))
    assert "the value has not ended after" in found.value.detail


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a":\n  what\n}\n', "found 'what'"),
        (b'{"a": [\n', "the file ends within the value"),
        (b'{"a":\n  NaN\n}\n', "found NaN, which is not JSON; expected a number or null"),
        (b'{"a": [\n"cut\n"b": 1}\n', "found '\"cut"),
    ],
)
def test_what_damages_a_value_over_lines_is_named(text: bytes, reason: str, tmp_path: Path) -> None:
    """Whoever looks for it sees where to look."""
    (tmp_path / "f").write_bytes(text)
    found = next(read_recording(tmp_path / "f")).value
    assert reason in found.detail


def test_values_over_lines_may_be_nested_up_to_a_limit() -> None:
    """What is nested more deeply is damage, as in a log."""
    for depth, expected in ((NESTING_MAX, dict), (NESTING_MAX + 1, str)):
        text = '{"a":\n' + "[" * (depth - 1) + "]" * (depth - 1) + "\n}\n"
        assert expected is type(_read(text.encode())[0][1]), depth


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
def test_a_compressed_file_that_was_cut_off_is_named(compress: Callable[[bytes], bytes]) -> None:
    """The lines before the cut are read, and the missing rest is a problem."""
    lines = [{"n": number, "x": f"{number * 7919 % 100003}"} for number in range(20_000)]
    found = _read(compress(_lines(lines).encode())[:-2000])
    assert lines[:1000] == [value for _, value in found[:1000]]
    assert "not_json" == found[-1][1]
    assert len(found) < len(lines)


@pytest.mark.parametrize(
    ("start", "command"), [(b"PK\x03\x04", "unzip -p"), (b"\xfd7zXZ\0", "xz -dc"), (b"BZh9", "bzip2 -dc")]
)
def test_another_format_is_refused_with_what_to_run(tmp_path: Path, start: bytes, command: str) -> None:
    """One sentence instead of a problem for every line of noise."""
    (tmp_path / "f").write_bytes(start + b"...")
    with pytest.raises(BadRecording, match=command):
        list(read_recording(tmp_path / "f"))


@pytest.mark.parametrize(
    "header",
    [
        "id,symbol,side,qty",
        ",id,client_order_id,symbol",
        "order_id,qty,price",
        "Order ID\tQty\tPrice",
        '"Symbol","Side","Qty","Avg. Fill Price"',
        "\ufeffid;symbol;side",
    ],
)
def test_every_table_of_orders_is_refused(tmp_path: Path, header: str) -> None:
    """Of pandas with an index, of a broker's page, of a spreadsheet."""
    (tmp_path / "f").write_text(f"{header}\n1,2,3\n")
    with pytest.raises(BadRecording, match=r"found a table"):
        list(read_recording(tmp_path / "f"))


@pytest.mark.parametrize("line", ["connected, authorized, listening", '"id","symbol","qty"]', "orders of id, symbol"])
def test_a_line_of_text_is_no_table(line: str) -> None:
    """What a program says before its first message costs one problem."""
    found = _read(f'{line}\n{{"a": 1}}\n'.encode())
    assert {"a": 1} == found[-1][1]


def test_a_line_of_text_is_one_problem() -> None:
    """A log of a program has lines between its messages, with numbers in them."""
    text = b'2026-03-02 14:30:00 INFO got 5\n{"a": 1}\n<html>\n- 1, 2\n'
    assert [(1, "not_json"), (2, {"a": 1}), (3, "not_json"), (4, "not_json")] == _read(text)


@pytest.mark.parametrize("text", ["{ id: 'o-1', qty: 5 }", "{\n  id: 'o-1',\n  qty: 5\n}", "{ID:o-1 Qty:5}"])
def test_what_other_languages_print_is_one_problem_with_what_to_write(tmp_path: Path, text: str) -> None:
    """`console.log(order)` and `%+v` lose what a text is."""
    (tmp_path / "f").write_text(f'{text}\n{{"a": 1}}\n')
    problem, found = read_recording(tmp_path / "f")
    assert "JSON.stringify" in problem.value.detail
    assert {"a": 1} == found.value


def test_a_table_is_refused_with_a_command_whose_output_is_read(tmp_path: Path) -> None:
    """One sentence instead of a problem for every row; the command that it names makes messages of the rows."""
    (tmp_path / "my orders").write_text("id,symbol,side,qty\no-1,AAPL,buy,10\n")
    with pytest.raises(BadRecording) as refused:
        list(read_recording(tmp_path / "my orders"))
    command = str(refused.value).split("Run: ")[1]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    found = list(read_recording(tmp_path / "captured.jsonl"))
    assert [{"id": "o-1", "symbol": "AAPL", "side": "buy", "qty": "10"}] == [one.value for one in found]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd.compress])
def test_progress_is_told_in_bytes_of_the_file(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    """A progress display knows only the size of the file, compressed or not."""
    path = tmp_path / "f"
    path.write_bytes(compress(_lines([{"n": number} for number in range(20_000)]).encode()))
    read: list[int] = []
    list(read_recording(path, read.append))
    assert path.stat().st_size == sum(read)
