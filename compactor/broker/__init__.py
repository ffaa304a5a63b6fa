"""The broker, today Alpaca: its messages become events, its answers heal the ledgers, orders are placed through it."""
