"""The tree of the package with one line per module, as contributing.md shows it.

The line of a module is the first line of its docstring. `python -m tests.tree --write` renews the page.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

PACKAGE = ROOT / "compactor"
PAGE = PACKAGE / "docs/contributing.md"
TREE = re.compile(
    r"(<!-- the tree: python -m tests\.tree --write -->\n```text\n)(.*?)(^```$)", re.MULTILINE | re.DOTALL
)


def module_paths() -> list[Path]:
    """Every module, compiled ones included: the modules of a package before the packages below it."""
    found = [path for path in PACKAGE.rglob("*.py*") if path.suffix in (".py", ".pyx") and path.read_text()]
    return sorted(found, key=lambda path: [(part.is_dir(), part.name) for part in _steps(path)])


def first_line(path: Path) -> str:
    """The first line of a module's docstring, without its full stop."""
    text = path.read_text()
    if path.suffix == ".py":
        doc = ast.get_docstring(ast.parse(text)) or ""
    else:
        (doc,) = re.findall(r'\A(?:#.*\n|\s*\n)*"""(.*?)(?:\n|""")', text)
    return doc.split("\n")[0].removesuffix(".")


def render_tree() -> str:
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "compactor/"
    room = PACKAGE
    for path in module_paths():
        if path.parent != room:
            room = path.parent
            yield "  " * len(room.relative_to(PACKAGE).parts) + f"{room.relative_to(PACKAGE)}/"
        indent = "  " * (1 + len(room.relative_to(PACKAGE).parts))
        yield f"{indent}{path.name:<{22 - len(indent)}} {first_line(path)}"


def _steps(path: Path) -> Iterator[Path]:
    for part in reversed(path.relative_to(PACKAGE).parents):
        if part.name:
            yield PACKAGE / part
    yield path


def main() -> None:
    """Print the tree, or write it into contributing.md."""
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(TREE.sub(lambda found: found[1] + render_tree() + found[3], PAGE.read_text()))
    else:
        print(render_tree(), end="")


if __name__ == "__main__":
    main()
