"""The adapter of Alpaca: everything that only Alpaca says, sends, refuses or forgets is known here and nowhere else."""
