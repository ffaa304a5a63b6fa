"""What the extra `tables` brings, and one clear message where it is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from compactor.core.exceptions import CompactorError


class MissingExtra(CompactorError, ImportError):
    """A package is not installed that a command or a function needs; the message says how to install it."""


TABLES = "'duckdb>=2.0' 'polars>=1.20' 'pyarrow>=16'"
"""What `pip install` needs to be given. Note: advice names packages, because `compactor` is another project there."""


def needed(name: str, by: str, install: str = TABLES) -> Any:
    """Import a package that is not always there. Raises MissingExtra."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtra(
            f"{by} needs {name}, which is not installed ({error}). Install it: pip install {install}"
        ) from None
