"""The law of one process over many passes: a sample here, as many as you like by `make laws RUNS=100000 SEED=1`."""

import pytest

from tests.laws_machine import Impure, Life, fold_at_once, run_lives

SAMPLE = 200


def test_a_sample_of_lives_is_pure() -> None:
    """1.4, 4.2, 6.2: passes, restarts, retentions and sealing in any order: the bytes of one fold."""
    assert [] == run_lives(SAMPLE, seed=1, jobs=2)


def test_a_life_that_is_not_pure_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The law can fail: a fold that forgets which orders ended is found within a few lives."""
    monkeypatch.setattr("compactor.core.archive.Archive.find", lambda *_: None)
    with pytest.raises(Impure):
        for seed in range(50):
            Life(seed).run()


def test_the_same_seed_is_the_same_life() -> None:
    """A failure is replayed by its seed."""
    lives = [Life(7), Life(7)]
    for life in lives:
        life.run()
    assert lives[0].log == lives[1].log
    assert fold_at_once(lives[0].log)[0] is not None or lives[0].passes
