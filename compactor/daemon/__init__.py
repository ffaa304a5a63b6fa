"""The daemon: keeps every ledger of a data directory current, and shows how it is."""
