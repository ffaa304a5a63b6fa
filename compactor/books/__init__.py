"""All ledgers of a data directory: compact, append, report their status, and tell which ledger has an order.

Functions take a data directory and return values. One ledger's failure is an entry of the result and never stops
another. Nothing here prints; `compactor.ui` does.
"""
