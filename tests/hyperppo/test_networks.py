"""The hand-written forward and backward passes against plain torch, and their symmetries."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hyperppo.chain_gru import pass_messages
from hyperppo.config import GHNConfig, make_config
from hyperppo.ghn import GHN, Bases
from hyperppo.policy import HyperPolicy, as_module, forward_mean, log_prob
from hyperppo.population import Population
from hyperppo.space import SearchSpace

SPACE = SearchSpace(18, 4)
ARCHITECTURES = [(4,), (64, 64), (256, 8, 16), (4,), (16, 64, 4, 128), (64, 64, 64)]


@pytest.fixture
def ghn() -> GHN:
    torch.manual_seed(0)
    return GHN(SPACE, GHNConfig())


def test_layers_have_their_shapes_and_start_near_he_initialisation(ghn: GHN) -> None:
    policies, _ = ghn(ARCHITECTURES)
    for architecture, weights in zip(ARCHITECTURES, policies, strict=True):
        for (fan_in, fan_out), (w, b) in zip(SPACE.layer_sizes(architecture), weights, strict=True):
            assert w.shape == (fan_out, fan_in)
            assert b.shape == (fan_out,)
    hidden = policies[1][1][0]
    assert float(hidden.detach().std()) == pytest.approx(math.sqrt(1.8 / 64), rel=0.35)


def test_a_batch_of_architectures_equals_one_at_a_time_in_any_order(ghn: GHN) -> None:
    together, offsets = ghn(ARCHITECTURES)
    order = [3, 5, 0, 2, 4, 1]
    permuted, _ = ghn([ARCHITECTURES[i] for i in order])
    for i, architecture in enumerate(ARCHITECTURES):
        (alone,), offset = ghn([architecture])
        torch.testing.assert_close(offsets[i], offset[0], atol=1e-6, rtol=1e-5)
        others = permuted[order.index(i)]
        for layer, single, other in zip(together[i], alone, others, strict=True):
            for a, b, c in zip(layer, single, other, strict=True):
                torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
                torch.testing.assert_close(a, c, atol=1e-6, rtol=1e-5)


def test_message_passing_equals_gated_cells_one_after_the_other() -> None:
    torch.manual_seed(4)
    ahead, back = nn.GRUCell(6, 6).double(), nn.GRUCell(6, 6).double()
    lengths = [3, 5, 1, 4]
    nodes = torch.randn(4, 5, 6, dtype=torch.float64, requires_grad=True)
    exists = torch.arange(5) < torch.tensor(lengths)[:, None]

    def plain() -> Tensor:
        chains = []
        for chain, length in zip(nodes, lengths, strict=True):
            states: list[list[Tensor]] = []
            for cell, order in ((ahead, range(length)), (back, reversed(range(length)))):
                h, seen = chain.new_zeros(6), {}
                for place in order:
                    h = seen[place] = cell(chain[place], h)
                states.append([seen[place] for place in range(length)])
            chains += [torch.cat(pair) for pair in zip(*states, strict=True)]
        return torch.stack(chains)

    parameters = [nodes, *ahead.parameters(), *back.parameters()]
    seeds = torch.randn(sum(lengths), 12, dtype=torch.float64)
    results = []
    for states in (pass_messages(ahead, back, nodes, exists)[exists], plain()):
        results.append((states, *torch.autograd.grad((states * seeds).sum(), parameters)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


def test_mixing_gradients_equal_autograd() -> None:
    torch.manual_seed(1)
    bases = Bases(3, 8, 6).double()
    nn.init.normal_(bases.bias)
    sizes = ((4, 5), (7, 5), (7, 3), (2, 2))  # neither the tallest nor the widest possible
    coefficients = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    scales = torch.rand(4, dtype=torch.float64)

    def plain() -> list[Tensor]:
        weights = [
            torch.einsum("k,koi->oi", coefficients[r] * scales[r], bases.weight[:, :o, :i])
            for r, (i, o) in enumerate(sizes)
        ]
        return weights + [coefficients[r] @ bases.bias[:, :o] for r, (_, o) in enumerate(sizes)]

    layers = bases(coefficients, scales, sizes)
    ours = [w for w, _ in layers] + [b for _, b in layers]
    seeds = [torch.randn_like(w) for w in ours]
    grads = []
    for parameters in (ours, plain()):
        total = sum((w * s).sum() for w, s in zip(parameters, seeds, strict=True))
        assert isinstance(total, Tensor)
        grads.append(torch.autograd.grad(total, [coefficients, bases.weight, bases.bias]))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


def _plain_forward(weights: list[tuple[Tensor, Tensor]], x: Tensor, slope: float) -> Tensor:
    for w, b in weights[:-1]:
        x = F.leaky_relu(F.linear(x, w, b), slope)
    return F.linear(x, *weights[-1])


def test_policy_gradients_equal_a_loop_of_plain_layers(ghn: GHN) -> None:
    ghn = ghn.double()
    observation = torch.randn(len(ARCHITECTURES), 32, 18, dtype=torch.float64)
    results = []
    for ours in (True, False):
        policies, _ = ghn(ARCHITECTURES)
        if ours:
            mean = forward_mean(policies, observation, 0.2)
        else:
            rows = zip(policies, observation, strict=True)
            mean = torch.stack([_plain_forward(w, x, 0.2) for w, x in rows])
        loss = (mean.sin() * torch.arange(4)).sum()
        wanted = [p for n, p in ghn.named_parameters() if "std_head" not in n]
        results.append((mean, *torch.autograd.grad(loss, wanted)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_a_population_equals_its_members() -> None:
    torch.manual_seed(2)
    ghn = GHN(SPACE, GHNConfig())
    chosen = [SPACE.architectures[i] for i in np.random.default_rng(1).choice(2800, 60)]
    with torch.no_grad():
        policies, _ = ghn(chosen)
        observation = torch.randn(60, 5, 18)
        together = Population(policies, 0.2)(observation)
        for weights, x, y in zip(policies, observation, together, strict=True):
            torch.testing.assert_close(y, _plain_forward(weights, x, 0.2), atol=1e-5, rtol=1e-4)


def test_the_folded_module_equals_normalising_first() -> None:
    torch.manual_seed(3)
    weights = [(torch.randn(8, 18), torch.randn(8)), (torch.randn(4, 8), torch.randn(4))]
    mean, std = torch.randn(18).double(), torch.rand(18).double() + 0.1
    module = as_module(weights, 0.2, mean, std)
    x = torch.randn(50, 18)
    expected = _plain_forward(weights, ((x.double() - mean) / std).float(), 0.2).clamp(-1, 1)
    torch.testing.assert_close(module(x), expected, atol=1e-4, rtol=1e-4)
    assert [type(m) for m in module] == [nn.Linear, nn.LeakyReLU, nn.Linear, nn.Hardtanh]


def test_log_prob_equals_torch_distributions() -> None:
    mean, action = torch.randn(2, 7, 4), torch.randn(2, 7, 4)
    log_std = torch.randn(2, 1, 4)
    reference = torch.distributions.Normal(mean, log_std.exp()).log_prob(action).sum(-1)
    torch.testing.assert_close(log_prob(action, mean, log_std), reference)


@pytest.mark.parametrize(("algo", "rows"), [("csd", 1), ("vsd", 2800)])
def test_standard_deviations_are_common_or_per_architecture(algo: str, rows: int) -> None:
    policy = HyperPolicy(SPACE, make_config({"algo": algo}))
    assert policy.log_std.shape == (rows, 4)
    with torch.no_grad():
        policy.log_std[-1] = math.log(0.3)
    _, log_std = policy([(256, 256, 256, 256), (4,)])
    first, second = log_std.exp().detach().unbind()
    assert first[0] == pytest.approx(0.3)
    assert second[0] == pytest.approx(0.3 if algo == "csd" else 0.5)


def test_a_predicted_standard_deviation_learns_per_architecture() -> None:
    policy = HyperPolicy(SPACE, make_config({}, ["policy.std=ghn"]))
    torch.nn.init.normal_(policy.weights.std_head.weight)  # type: ignore[union-attr,arg-type]
    _, log_std = policy([(256, 256), (4,)])
    assert not torch.allclose(log_std[0], log_std[1])


def test_a_standard_deviation_has_a_floor() -> None:
    policy = HyperPolicy(SPACE, make_config({}, ["policy.min_std=0.2"]))
    with torch.no_grad():
        policy.log_std.fill_(-9)
    assert policy([(4,)])[1].exp().min().item() == pytest.approx(0.2)


def test_the_paper_s_network_estimates_any_architecture_and_learns_from_it() -> None:
    torch.manual_seed(4)
    policy = HyperPolicy(SPACE, make_config({}, ["ghn.kind=original"]))
    count = sum(p.numel() for p in policy.weights.parameters())
    assert 8.3e6 < count < 8.7e6  # the paper's network has 8.5 million
    together, _ = policy(ARCHITECTURES)
    for i, architecture in enumerate(ARCHITECTURES):
        (alone,), _ = policy([architecture])
        for (fan_in, fan_out), (w, b), (v, c) in zip(
            SPACE.layer_sizes(architecture), together[i], alone, strict=True
        ):
            assert w.shape == (fan_out, fan_in)
            assert b.shape == (fan_out,)
            torch.testing.assert_close(w, v, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(b, c, atol=1e-5, rtol=1e-4)
    hidden = together[1][1][0].detach()
    assert float(hidden.std()) == pytest.approx(math.sqrt(2 / 64), rel=0.5)
    mean = forward_mean(together, torch.randn(len(ARCHITECTURES), 8, 18), 0.2)
    mean.square().sum().backward()
    without = [n for n, p in policy.weights.named_parameters() if p.grad is None]
    assert all("std_head" in n or n == "weights.bias" for n in without)
