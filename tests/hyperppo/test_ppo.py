import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyperppo import ppo
from hyperppo.normalizer import RunningNorm


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 4))
def test_gae_equals_its_definition(seed: int, steps: int, envs: int) -> None:
    """Sum over the rest of the episode of (gamma lambda)^k delta, by two plain loops."""
    rng = np.random.default_rng(seed)
    reward, value = rng.normal(size=(2, steps, envs))
    final = rng.normal(size=(steps, envs))
    last = rng.normal(size=envs)
    kind = rng.choice(3, p=(0.7, 0.15, 0.15), size=(steps, envs))
    gamma, lam = 0.97, 0.9
    expected = np.zeros((steps, envs))
    for e in range(envs):
        for t in range(steps):
            weight = 1.0
            for k in range(t, steps):
                after = last[e] if k == steps - 1 else value[k + 1, e]
                after = {0: after, 1: 0.0, 2: final[k, e]}[int(kind[k, e])]
                expected[t, e] += weight * (reward[k, e] + gamma * after - value[k, e])
                weight *= gamma * lam
                if kind[k, e]:
                    break
    ours = ppo.gae(
        *(torch.tensor(x) for x in (reward, value, last, kind == 1, kind == 2, final)), gamma, lam
    )
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-12)


def test_kl_equals_torch_distributions() -> None:
    torch.manual_seed(0)
    means, log_stds = torch.randn(2, 3, 9, 4), torch.randn(2, 3, 1, 4)
    old, new = (
        torch.distributions.Normal(m, s.exp()) for m, s in zip(means, log_stds, strict=True)
    )
    reference = torch.distributions.kl_divergence(old, new).sum(-1).mean()
    ours = ppo.gaussian_kl(means[0], log_stds[0], means[1], log_stds[1])
    torch.testing.assert_close(ours, reference)


def test_the_clipped_objective_stops_pulling_outside_the_clip() -> None:
    ratio = torch.tensor([0.5, 1.0, 1.5, 0.5, 1.5], requires_grad=True)
    advantage = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0])
    loss = ppo.policy_loss(ratio, advantage, 0.2)
    # min(r A, clip(r) A): 0.5, 1, 1.2, -0.8, -1.5
    torch.testing.assert_close(loss, torch.tensor(-(0.5 + 1 + 1.2 - 0.8 - 1.5) / 5))
    (gradient,) = torch.autograd.grad(loss, ratio)
    torch.testing.assert_close(gradient, torch.tensor([-0.2, -0.2, 0.0, 0.0, 0.2]))


def test_value_clipping_takes_the_worse_error() -> None:
    value, old, target = torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([2.0])
    assert ppo.value_loss(value, old, target, None).item() == 0.0
    assert ppo.value_loss(value, old, target, 0.5).item() == 0.5 * 1.5**2


@pytest.mark.parametrize(
    ("kl", "expected", "skipped"),
    [
        (0.0, 1e-3, False),  # exactly 0 says nothing: no step was taken
        (0.004, 1.5e-3, False),
        (0.01, 1e-3, False),
        (0.03, 1e-3 / 1.5, False),
        (0.05, 1e-3 / 1.5, True),
    ],
)
def test_the_learning_rate_follows_the_divergence(
    kl: float, expected: float, skipped: bool
) -> None:
    rate = ppo.adapted_rate(torch.tensor(1e-3), torch.tensor(kl), 0.01, (1e-4, 2e-3))
    assert float(rate) == pytest.approx(expected)
    assert bool(ppo.too_far(torch.tensor(kl), 0.01)) is skipped
    assert not ppo.too_far(torch.tensor(kl), None)
    low = ppo.adapted_rate(torch.tensor(1.2e-4), torch.tensor(1.0), 0.01, (1e-4, 2e-3))
    high = ppo.adapted_rate(torch.tensor(1.9e-3), torch.tensor(1e-6), 0.01, (1e-4, 2e-3))
    assert (float(low), float(high)) == pytest.approx((1e-4, 2e-3))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 1000))
def test_running_statistics_equal_those_of_all_data(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = [rng.normal(3.0, 2.0, size=(n, 2)) for n in sizes]
    norm = RunningNorm(2)
    for batch in batches:
        norm.update(torch.tensor(batch))
    everything = np.concatenate(batches)
    np.testing.assert_allclose(norm.mean.numpy(), everything.mean(0), atol=1e-9)
    np.testing.assert_allclose(norm.var.numpy(), everything.var(0), atol=1e-9)
