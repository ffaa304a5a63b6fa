"""A local Alpaca: HTTP and WebSocket on loopback, for the real alpaca-py, with scripted or random orders and faults.

In a test:

    with AlpacaServer(seed=7) as server:
        client = TradingClient(server.key, server.secret, paper=True, raw_data=True, url_override=server.url)
        stream = TradingStream(server.key, server.secret, raw_data=True, url_override=server.stream_url)
        order = server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="181.50")
        execution = server.fill(order.id, 4, "181.36")       # then cancel, replace, expire, bust, correct, …
        server.live(200)                                      # or a random, seeded life
        server.fail_next("GET /v2/orders", "rate_limited")    # faults one by one, or Faults(drop=0.1, …) as a plan
        server.disconnect(); server.go_mute(); server.go_half_open()
        server.truth().open, server.truth().fills             # what is true at the broker

`server.environment` are the variables for a subprocess, `server.listeners` the streams that listen, `server.requests`
what was asked so far. With `start="2026-03-02T14:30:00Z"` the clock is simulated (`server.clock` for what takes one,
`server.exchange.clock.advance(seconds)`, `server.exchange.next_day()`); `resend=True` has the resend endpoints,
`keys=` several accounts, `rate_limit=None` no limit, `plain=True` no oddities of the wire, `binary=False` text frames.

By hand: `python -m tests.alpaca_server --port 8123 --seed 7`; it prints the variables to set.
"""

from tests.alpaca_server.faults import Faults
from tests.alpaca_server.server import AlpacaServer
from tests.alpaca_server.truth import Truth

__all__ = ["AlpacaServer", "Faults", "Truth"]
