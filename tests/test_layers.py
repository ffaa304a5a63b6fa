"""Layers point one way, and the core stays pure: read from the source, imports inside functions included."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compactor.broker.alpaca import event_fields
from tests.conftest import ROOT

PACKAGE = ROOT / "compactor"
MODULES = sorted(PACKAGE.rglob("*.py"))
LAYERS = [
    ["core"],
    ["ledger"],
    ["books"],
    ["tables", "proofs"],
    ["history", "verify", "broker"],
    ["imports", "settings"],
    ["sync"],
    ["daemon"],
    ["tracker"],
    ["web"],
    ["ui"],
]
"""From the bottom up; rooms of one layer do not see each other."""
ALLOWED = {
    room: {room} | {below for lower in LAYERS[:height] for below in lower}
    for height, layer in enumerate(LAYERS)
    for room in layer
}
# The core takes values and returns values: with these it could see a clock, a disk, the machine or chance.
IMPURE = {
    "asyncio",
    "io",
    "locale",
    "logging",
    "mmap",
    "os",
    "pathlib",
    "random",
    "secrets",
    "shutil",
    "signal",
    "socket",
}
IMPURE |= {"subprocess", "tempfile", "threading", "time", "uuid"}


def imports_of(path: Path) -> Iterator[str]:
    """The full names of all modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: found a relative import, expected the full name"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(path: Path) -> str:
    """The first folder below the package; empty for the package's own modules."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def files_of(layer: str) -> list[Path]:
    return [path for path in MODULES if layer_of(path) == layer]


@pytest.mark.parametrize("layer", ALLOWED)
def test_a_layer_imports_only_what_is_below_it(layer: str) -> None:
    """Layers point one way, from the user interface down to the core."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files_of(layer)
        for name in imports_of(path)
        if name.startswith("compactor.") and name.split(".")[1] not in ALLOWED[layer] | {"__version__"}
    ]
    assert [] == wrong


@pytest.mark.parametrize("layer", ALLOWED)
def test_every_layer_has_modules(layer: str) -> None:
    """A test of layers that looks at no file could not fail."""
    assert files_of(layer)


def test_the_core_imports_only_the_standard_library_and_msgspec() -> None:
    """The core imports the standard library and msgspec, takes values and returns values."""
    roots = {name.split(".")[0] for path in files_of("core") for name in imports_of(path)}
    assert set() == {root for root in roots if root not in sys.stdlib_module_names} - {"msgspec", "compactor"}


def test_the_core_knows_no_clock_disk_or_logger() -> None:
    """The core knows no clock, disk or logger."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files_of("core")
        for name in imports_of(path)
        # The import switch of the compiled modules reads one variable of the environment.
        if name.split(".")[0] in IMPURE and path.parent.name + "/" + path.name != "fast/__init__.py"
    ]
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno} calls {ast.unparse(node.func)}"
        for path in files_of("core")
        for part in ast.parse(path.read_text()).body
        # What `python -m` does with a module is not what the module does.
        if not (isinstance(part, ast.If) and ast.unparse(part.test) == "__name__ == '__main__'")
        for node in ast.walk(part)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("open", "print", "input", "datetime.now", "datetime.utcnow")
    ]
    assert [] == wrong + calls


VOCABULARY = {"at", "id", "status", "timestamp", "type", "updated_at", "details", "nested"}
"""Names of Alpaca's that are the ledger's as well (format.md), or mean something else elsewhere."""
NAMES_ALPACA = {
    "__init__.py": "what the package is for",
    "broker/adapters.py": "where the adapter is",
    "broker/credentials.py": "the default of the settings",
    "core/lifecycle.py": "where the statuses came from",
    "settings/configuration.py": "the limit that the default leaves room in",
    "ui/importing.py": "the command that imports its recordings",
    "ui/reconcile_command.py": "the variables that hold keys",
    "ui/running.py": "the variables that hold keys",
}
"""The modules that name Alpaca at all, and what for."""


def others_than_alpacas() -> list[Path]:
    return [path for path in MODULES if layer_of(path) != "imports" and PACKAGE / "broker/alpaca" not in path.parents]


def test_alpacas_words_occur_in_its_adapter_only() -> None:
    """Its statuses, JSON, quirks and errors are known to `broker/alpaca`, and to the import of recordings."""
    tables = (
        event_fields.ORDER, event_fields.UPDATE, event_fields.REVISION, event_fields.LEG, event_fields.LEG_ORDER,
        event_fields.ACTIVITY,
        event_fields.STREAMED, event_fields.STREAMED_DETAILS,
    )  # fmt: skip
    theirs = {name for table in tables for name in table} | set(event_fields.ORDER_TIMES)
    ours = {name for table in tables for name in table.values()}
    words = theirs - ours - VOCABULARY | {"trade_updates", "activity_type", "FILL", "TRD", "leaves_qty", "event_ulid"}
    assert {"submitted_at", "cum_qty", "ref_id"} <= words
    wrong = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} says {node.value}"
        for path in others_than_alpacas()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in words
    ]
    assert [] == wrong


def test_other_rooms_neither_name_nor_import_alpaca() -> None:
    """Whoever needs an account asks `broker.adapters` for it by its name."""
    found = {
        str(path.relative_to(PACKAGE))
        for path in others_than_alpacas()
        if re.search("alpaca|apca", path.read_text(), re.IGNORECASE)
    }
    assert set(NAMES_ALPACA) == found
    imported = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in others_than_alpacas()
        for name in imports_of(path)
        if name.startswith(("compactor.broker.alpaca", "alpaca"))
    ]
    assert [] == imported


def test_modules_stay_short() -> None:
    """A module has at most 420 lines: what is longer is two things."""
    long = {
        str(path.relative_to(ROOT)): count for path in MODULES if (count := len(path.read_text().splitlines())) > 420
    }
    assert {} == long


def test_every_module_says_what_it_does() -> None:
    """A module's docstring says what it does."""
    assert [] == [
        str(path) for path in MODULES if path.read_text() and not ast.get_docstring(ast.parse(path.read_text()))
    ]


SLOW = (
    "alpaca",
    "pandas",
    "numpy",
    "pydantic",
    "rich",
    "structlog",
    "watchfiles",
    "pytest",
    "multiprocessing",
    "asyncio",
)


@pytest.mark.parametrize(
    "module",
    [
        "compactor",
        "compactor.ui.cli",
        "compactor.books.compact",
        "compactor.books.append",
        "compactor.books.compact",
    ],
)
def test_starting_does_not_import_what_is_slow(module: str) -> None:
    """`compactor status` must feel instant: what takes long to import is imported where it is needed."""
    code = f"import sys, {module}; print(*sorted(set({SLOW!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "" == done.stdout.strip()


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_no_ledger(option: str) -> None:
    """`compactor --help` and `--version` wait for nothing that they do not show."""
    code = (
        f"import sys\nfrom compactor.ui.cli import app\ntry: app([{option!r}])\nexcept SystemExit: pass\n"
        "print(*(name for name in sys.modules if name.split('.')[:2] in [['compactor', layer] for layer in "
        "('books', 'settings', 'ledger', 'broker', 'core')] or name == 'msgspec'), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "" == done.stderr.strip()


def test_the_top_level_holds_six_things() -> None:
    """Documents, the licence and files of deployment live inside the folders; hidden files are fine."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this is no checkout of git")
    found = {name.partition("/")[0] for name in listed.stdout.splitlines() if not name.startswith(".")}
    assert {"compactor", "tests", "fixtures", "pyproject.toml", "README.md", "Makefile"} == found
