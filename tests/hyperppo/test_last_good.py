"""Going back to policies of before when gradients through the simulator diverge."""

import pytest
import torch

from hyperppo import train as job
from hyperppo.last_good import LastGood
from hyperppo.trainer import Trainer
from hyperppo.trainer_state import restore, state_of

from .conftest import small_config


def marked(trainer: Trainer, mark: float) -> None:
    """Make the averaged policies tell of the iteration that they were copied at."""
    with torch.no_grad():
        next(trainer.averaged.parameters()).fill_(mark)


def mark_of(policy: torch.nn.Module) -> float:
    return float(next(policy.parameters()).flatten()[0])


def test_policies_come_back_from_before_the_fall() -> None:
    """The return wavers, then falls as those of the trainings that diverged did."""
    trainer = job._trainer(small_config(polish={"last": 1.0}))
    last_good = LastGood(trainer.policy)
    for i in range(160):
        marked(trainer, i)
        assert not last_good.diverged(trainer.averaged, 280 + 30 * (-1) ** i, 100)
    fallen = next(i for i in range(10) if last_good.diverged(trainer.averaged, 280 - 20 * i, 100))
    assert fallen == 8  # the mean of five of them is 200 then, of 280
    assert mark_of(last_good.earlier) == 99  # the newer copy, of 149, may be too late
    # What is usual starts anew: after a fall everything lies on the floor for a while.
    again = LastGood(trainer.policy)
    assert [again.diverged(trainer.averaged, v, 1) for v in (3, -2, -2, -1.9)] == [
        False, True, False, False,
    ]  # fmt: skip


def test_returns_that_fall_slowly_are_no_divergence() -> None:
    """A task that becomes harder while it is trained."""
    trainer = job._trainer(small_config(polish={"last": 1.0}))
    last_good = LastGood(trainer.policy)
    assert not any(last_good.diverged(trainer.averaged, -0.01 * i, 1) for i in range(1000))


def test_training_goes_on_from_policies_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(polish={"last": 1.0}, steps=64 * 8 * 12)
    trainer = job._trainer(config)
    first = trainer.step()
    assert first["fell_back"] == 0
    before = {k: v.clone() for k, v in trainer.averaged.state_dict().items()}
    trainer.step()
    state = {k: v.clone() for k, v in state_of(trainer).items()}
    actual = trainer.polish

    def broken(*given: object) -> object:
        rollout, improve = actual(*given)  # type: ignore[arg-type]
        return rollout, lambda: improve() | {"policy_loss": 1e4}

    monkeypatch.setattr(trainer, "polish", broken)
    assert trainer.step()["fell_back"] == 1
    for policy in (trainer.policy, trainer.averaged):
        assert all(torch.equal(v, before[k]) for k, v in policy.state_dict().items())
    assert trainer.polisher is not None
    moments = trainer.polisher.optimizer.state.values()
    assert not any(bool(m.any()) for each in moments for m in each.values())
    monkeypatch.setattr(trainer, "polish", actual)
    assert trainer.step()["fell_back"] == 0
    # A training resumed from a checkpoint falls back to the same policies.
    other = job._trainer(config)
    restore(other, state)
    assert other.polisher is not None
    kept = other.polisher.last_good.earlier.state_dict()
    assert all(torch.equal(v, before[k]) for k, v in kept.items())
    assert int(other.polisher.last_good.well) == 2


def test_ppo_alone_keeps_no_copies() -> None:
    assert "last_good" not in job._trainer(small_config()).modules()
