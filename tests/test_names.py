"""One word per thing: names of classes and modules, the glossary, the tree, and the paths that documents name."""

from __future__ import annotations

import ast
import importlib
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests import tree
from tests.conftest import ROOT

PACKAGE = ROOT / "compactor"
MODULES = sorted(PACKAGE.rglob("*.py"))
PAGES = [ROOT / "README.md", *sorted(PACKAGE.rglob("*.md")), *sorted((ROOT / "fixtures").rglob("README.md"))]
GLOSSARY = PACKAGE / "docs/glossary.md"
WORDS_MAX = 40


def doubled(found: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: places for name, places in found.items() if len(places) > 1}


def glossary() -> dict[str, tuple[str, str]]:
    """Each word of the glossary with its meaning and what is not said instead."""
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \| (.*?) ?\|$", GLOSSARY.read_text(), re.MULTILINE)
    return {word: (meaning, instead) for word, meaning, instead in rows}


def test_every_class_name_stands_once() -> None:
    """A class name means one thing in the whole package; names with a leading underscore are a module's own."""
    found = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(ROOT)))
    assert {} == doubled(found)


def test_functions_are_verbs() -> None:
    """`parse_time`, and neither `time_of` nor `of_time`."""
    wrong = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and re.search(r"_of$|^_?of_", node.name)
    ]
    assert [] == wrong


def test_no_two_public_modules_have_one_name() -> None:
    """`errors` alone would not say whose."""
    found = defaultdict(list)
    for path in tree.module_paths():
        if not path.stem.startswith("_"):
            found[path.stem].append(str(path.relative_to(ROOT)))
    assert {} == doubled(found)


def test_what_a_reader_would_not_expect_is_a_note() -> None:
    """Docstrings say "Note:" or "Invariant:"."""
    texts = {path: " ".join(path.read_text().split()) for path in [*tree.module_paths(), *PAGES]}
    found = [
        str(path.relative_to(ROOT))
        for path, text in texts.items()
        if re.search(r"[Ww]hat surprises|that surprises", text)
    ]
    assert [] == found


def test_the_tree_is_that_of_the_package() -> None:
    """contributing.md has one line per module."""
    (shown,) = (found[1] for found in tree.TREE.findall(tree.PAGE.read_text()))
    assert tree.render_tree() == shown, "renew it: python -m tests.tree --write"
    assert len(tree.module_paths()) < len(shown.splitlines())


@pytest.mark.parametrize("path", tree.module_paths(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_first_line_of_a_module_is_a_sentence(path: Path) -> None:
    """It is the module's line in the tree."""
    assert re.search(r"[.)`]$", tree.first_line(path) + "."), "the sentence goes on in the second line"


def test_the_glossary_has_few_words_each_defined_once() -> None:
    """At most 40 words, each with one meaning."""
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", GLOSSARY.read_text(), re.MULTILINE)
    assert 20 < len(words) <= WORDS_MAX
    assert [] == [word for word, count in Counter(word.lower() for word in words).items() if count > 1]
    assert sorted(words, key=str.lower) == words
    assert set(words) == set(glossary()), "a row of the glossary has three cells"


def test_no_name_is_a_word_that_the_glossary_rejects() -> None:
    """Names in backticks in the last column stand nowhere in the code, neither as a class nor as a module."""
    rejected = {name for _, instead in glossary().values() for name in re.findall(r"`(\w+)`", instead)}
    assert rejected
    used = {path.stem for path in MODULES}
    for path in MODULES:
        used |= {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)}
    assert set() == rejected & used


def test_links_of_the_documents_lead_somewhere() -> None:
    """A link names a file, and a heading where it has an anchor."""
    wrong = []
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)(#[^)\s]+)?\)", page.read_text()):
            path = (page.parent / target).resolve() if target else page
            if not path.exists() or (anchor and path.suffix == ".md" and anchor[1:] not in anchors(path)):
                wrong.append(f"{page.relative_to(ROOT)}: {target}{anchor}")
    assert [] == wrong


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made for Markdown."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_paths_in_documents_exist() -> None:
    """`compactor/…`, `tests/…` and `fixtures/…` in documents and docstrings are files or directories."""
    pattern = re.compile(r"(?<![\w./@-])((?:compactor|tests|fixtures|\.ci|\.github)/[\w./-]*\w)")
    wrong = [
        f"{page.relative_to(ROOT)}: {path}"
        for page in [*PAGES, *MODULES]
        for path in pattern.findall(page.read_text())
        if not (ROOT / path).exists() and "egg-info" not in path
    ]
    assert [] == wrong


def test_modules_in_documents_exist() -> None:
    """`compactor.x.y` and `python -m tests.x` in documents and docstrings can be imported, up to the last name."""
    pattern = re.compile(r"`(?:python -m )?((?:compactor|tests)(?:\.\w+)+)")
    wrong = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in [*PAGES, *MODULES]
        for name in pattern.findall(page.read_text())
        if not resolves(name)
    ]
    assert [] == wrong


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of what is in front of it."""
    if name.split(".")[1] in ("toml", "env", "service", "key"):
        return True  # A file.
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False
