"""The switch between the compiled short path and the rules in Python. README.md says what the short path may refuse.

Set `COMPACTOR_PURE_PYTHON=1` to turn the compiled modules off. The output is the same, byte for byte.
"""

from os import environ
from typing import TYPE_CHECKING

from compactor.core.fast.interface import NoPlainOrders

IS_COMPILED = False
"""Whether the compiled modules are in use."""
IS_SWITCHED_OFF = environ.get("COMPACTOR_PURE_PYTHON", "") not in ("", "0")
"""Whether the environment forbids them."""
PlainOrders = NoPlainOrders

if not TYPE_CHECKING and not IS_SWITCHED_OFF:
    try:
        from compactor.core.fast import marks  # noqa: F401
        from compactor.core.fast.plain_orders import PlainOrders
    except ImportError:  # There was no compiler at installation.
        PlainOrders = NoPlainOrders
    else:
        IS_COMPILED = True
