"""What the extra `tables` brings, and one clear message where it is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class MissingExtra(ImportError):
    """A package is not installed that a command or a function needs; the message says how to install it."""


def needed(name: str, by: str, install: str = "'compactor[tables]'") -> Any:
    """Import a package that is not always there. Raises MissingExtra."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtra(
            f"{by} needs {name}, which is not installed ({error}). Install it: pip install {install}"
        ) from None
