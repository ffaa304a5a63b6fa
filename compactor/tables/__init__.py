"""Tables of all ledgers for other programs: rows, export, SQL and Arrow."""
