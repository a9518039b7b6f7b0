import numpy as np
import pytest
import torch

from hyperppo.batch import Batch, cut, minibatches, mix
from hyperppo.sampling import ArchitectureSampler
from hyperppo.space import SearchSpace

SPACE = SearchSpace(18, 4)


def share_by_depth(sampler: ArchitectureSampler) -> list[float]:
    p = sampler.probabilities()
    return [float(p[SPACE.depths == d].sum()) for d in (1, 2, 3, 4)]


def test_biased_sampling_is_uniform_over_depth_and_then_within() -> None:
    sampler = ArchitectureSampler(SPACE, "biased", 0)
    assert share_by_depth(sampler) == pytest.approx([0.25] * 4)
    p = sampler.probabilities()
    for depth in (1, 2, 3, 4):
        assert np.ptp(p[SPACE.depths == depth]) < 1e-15
    drawn = [len(a) for a in sampler.draw(8000)]
    assert np.bincount(drawn)[1:] / 8000 == pytest.approx([0.25] * 4, abs=0.03)


def test_uniform_sampling_is_uniform() -> None:
    p = ArchitectureSampler(SPACE, "uniform", 0).probabilities()
    np.testing.assert_allclose(p, 1 / 2800)


def test_adaptive_sampling_draws_more_of_what_does_badly() -> None:
    sampler = ArchitectureSampler(SPACE, "adaptive", 0)
    assert share_by_depth(sampler) == pytest.approx([0.25] * 4)
    for _ in range(30):
        batch = sampler.draw(64)
        sampler.learn(batch, np.array([1.0 if min(a) == 4 else 3.0 for a in batch]))
    p = sampler.probabilities()
    narrow = np.array([min(a) == 4 for a in SPACE.architectures])
    before = sampler.prior[narrow].sum()
    assert p.sum() == pytest.approx(1)
    assert p[narrow].sum() > 1.3 * before
    assert p.min() > 0


def test_adaptive_sampling_does_not_run_after_chance() -> None:
    """Equal architectures, rewards that differ by chance alone: no group is left out."""
    sampler = ArchitectureSampler(SPACE, "adaptive", 0)
    chance = np.random.default_rng(1)
    for _ in range(2000):
        batch = sampler.draw(8)
        sampler.learn(batch, chance.normal(3.0, 0.1, len(batch)))
    ratio = sampler.probabilities() / sampler.prior
    assert 0.5 < ratio.min() < ratio.max() < 2.0


def test_a_depth_bias_draws_the_shallow_more_often() -> None:
    for kind in ("biased", "adaptive"):
        shares = share_by_depth(ArchitectureSampler(SPACE, kind, 0, depth_bias=1.0))
        assert shares == pytest.approx([12 / 25, 6 / 25, 4 / 25, 3 / 25])


def test_sampling_goes_on_from_its_state() -> None:
    a, b = (ArchitectureSampler(SPACE, "adaptive", seed) for seed in (0, 1))
    for step in range(20):
        batch = a.draw(8)
        a.learn(batch, np.arange(8.0) + step)
    b.load_state_dict(a.state_dict())
    assert a.draw(50) == b.draw(50)
    for sampler in (a, b):
        sampler.learn([(4,), (8, 8)], np.array([0.0, 9.0]))
    assert (a.probabilities() == b.probabilities()).all()


@pytest.mark.parametrize("kind", ["biased", "uniform", "adaptive"])
def test_the_same_seed_draws_the_same(kind: str) -> None:
    a, b = (ArchitectureSampler(SPACE, kind, 3) for _ in range(2))  # type: ignore[arg-type]
    assert a.draw(50) == b.draw(50)


@pytest.mark.parametrize(("E", "J"), [(4, 2), (4, 4), (4, 1), (1, 1)])
def test_cutting_keeps_every_sample_with_its_architecture_and_environment(E: int, J: int) -> None:
    T, M = 3, 2
    where = torch.stack(
        torch.meshgrid(torch.arange(T), torch.arange(M), torch.arange(E), indexing="ij"), -1
    )
    pieces = cut(where.flatten(1, 2), M, J)
    assert pieces.shape == (J, M, T * E // J, 3)
    for j in range(J):
        for m in range(M):
            assert (pieces[j, m, :, 1] == m).all()
            assert (pieces[j, m, :, 2] // (E // J) == j).all()
    assert len(torch.unique(pieces.flatten(0, 2), dim=0)) == T * M * E


def test_shuffled_minibatches_have_every_sample_once_an_epoch_with_its_own_fields() -> None:
    J, M, B = 3, 2, 5
    number = torch.arange(J * M * B).view(J, M, B)  # a name for every sample
    batch = Batch(
        *(number[..., None].float() for _ in range(3)),
        number.float(),
        number[..., None].float(),
        *(number.float() for _ in range(3)),
    )
    parts = list(minibatches(batch, 2, seed=0))
    assert len(parts) == 2 * J
    for part in parts:
        assert all(torch.equal(x.view(M, B), part.value) for x in vars(part).values())
    for m in range(M):
        for epoch in (parts[:J], parts[J:]):
            seen = torch.cat([part.value[m] for part in epoch]).sort().values
            assert torch.equal(seen, number[:, m].flatten().sort().values.float())
    assert not torch.equal(parts[0].value, parts[J].value)
    again = list(minibatches(batch, 2, seed=0))
    assert all(torch.equal(a.value, b.value) for a, b in zip(parts, again, strict=True))
    plain = list(minibatches(batch, 1, seed=None))
    assert all(torch.equal(part.value, number[j].float()) for j, part in enumerate(plain))


def test_mixing_moves_samples_between_architectures_but_keeps_their_fields_together() -> None:
    ids = torch.arange(2 * 3 * 50).view(2, 3, 50)
    fields = {name: ids.clone() for name in Batch.__dataclass_fields__}
    mixed = mix(Batch(**fields), torch.Generator().manual_seed(0))
    assert all(torch.equal(getattr(mixed, name), mixed.value) for name in fields)
    assert torch.equal(mixed.value.flatten(1).sort(1).values, ids.flatten(1))
    moved = (mixed.value % 150) // 50 != torch.arange(3)[None, :, None]
    assert 0.5 < moved.float().mean().item() < 0.8
