"""A second broker with other habits than Alpaca: its server (`server`), and the adapter that the ledger finds by name.

Orders are numbered per symbol, nothing tells of a single execution, what was missed is never sent again, two orders may
have one reference, and every status has another name. `entry` is what an installed package would leave behind: on the
path, it is an entry point of the group "compactor.brokers".
"""
