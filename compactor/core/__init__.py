"""The pure core: bytes → event → fold → state → derived lines.

It takes values and returns values. It knows no clock, no disk and no logger, and imports only the standard library
and msgspec.
"""
