"""Work over many ledgers: compacting, appending, importing, reporting.

A job takes a data directory, runs what `compactor.ledger` does for one ledger over all of them, and returns values: one
ledger's failure is an entry of the result and never stops another. Nothing here prints; `compactor.ui` does.
"""
