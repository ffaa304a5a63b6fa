"""What we know about brokers: today Alpaca, whose messages become events here. This layer never touches a ledger."""
