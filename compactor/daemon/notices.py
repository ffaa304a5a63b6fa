"""What the daemon says on standard error: JSON lines, or coloured text on a terminal.

One line a pass and one for each change of state; which, is decided where it happens.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

Log = Any
"""A structlog logger with its context bound."""


def logger(level: str = "info") -> Log:
    """The daemon's logger; `level` is debug, info, warning or error."""
    is_terminal = sys.stderr.isatty()
    # A traceback without the variables of its frames, which may hold a key.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer: Any = console if is_terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if is_terminal else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    return structlog.get_logger()
