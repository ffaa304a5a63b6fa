"""Keys in the memory of a process: no text, traceback or pickle shows them."""

from __future__ import annotations

import pickle

import pytest

from compactor.broker.credentials import BadCredentials, Credentials, Environment, Hidden


def test_variables_are_read_and_never_shown() -> None:
    environ = Environment({"ALPACA_API_KEY": "PK1", "HOME": "/root"})
    assert ("PK1", "PK1", None) == (environ["ALPACA_API_KEY"], environ.get("ALPACA_API_KEY"), environ.get("x"))
    assert (2, ["ALPACA_API_KEY", "HOME"]) == (len(environ), list(environ))
    assert "<2 variables>" == repr(environ)
    assert "'…'" == repr(environ["ALPACA_API_KEY"]) == repr(Hidden("PK1"))
    with pytest.raises(KeyError):
        environ["x"]


def test_keys_are_hidden_in_a_text() -> None:
    """Both, and the longer one first where one is the beginning of the other."""
    credentials = Credentials("PK", "PK-secret", ("A", "B"))
    assert "GET … with … and …" == credentials.hide("GET PK with PK-secret and PK")
    assert "… …" == Credentials("long-key", "key", ("A", "B")).hide("long-key key")
    assert "nothing" == credentials.hide("nothing")


def test_keys_are_never_written_down() -> None:
    with pytest.raises(TypeError, match="never written down"):
        pickle.dumps(Credentials("PK", "secret", ("A", "B")))


def test_a_refusal_says_what_the_broker_said() -> None:
    assert (None, None) == (BadCredentials("no").status, BadCredentials("no").code)
    error = BadCredentials("no", status=403, code="40310000")
    assert ("no", 403, "40310000") == (str(error), error.status, error.code)
