"""The padded form of policies is the same networks, gradients included."""

from __future__ import annotations

import pytest
import torch

from hyperppo.config import make_config
from hyperppo.policy import HyperPolicy, forward_mean
from hyperppo.space import SearchSpace

SPACE = SearchSpace(7, 3, (4, 8, 16), 4)
MIXED = [(4,), (16, 4, 8, 16), (8, 8), (4, 16, 4), (16,), (8, 4, 8, 4)]


@pytest.mark.parametrize(
    ("given", "space", "architectures"),
    [
        ({}, SPACE, MIXED),
        ({"algo": "vsd"}, SPACE, MIXED),
        ({"ghn": {"kind": "original"}}, SPACE, MIXED),
        ({"policy": {"std": "ghn"}}, SPACE, MIXED[:1]),
        ({}, SearchSpace(7, 3, (4, 8), 1), [(8,), (4,)]),
        (
            {"algo": "ppo", "architecture": (16, 8), "meta_batch": 2},
            SearchSpace(7, 3, (16, 8), 2, (16, 8)),
            [(16, 8), (16, 8)],
        ),
    ],
)
def test_padded_policies_act_and_learn_as_the_networks_that_they_are(given, space, architectures):
    torch.manual_seed(0)
    policy = HyperPolicy(space, make_config(given))
    observation = torch.randn(len(architectures), 5, space.obs_dim)
    weight = torch.randn(len(architectures), 5, space.act_dim)

    def gradients(dense):
        if dense:
            policies, log_std = policy.dense(policy.tell(architectures), architectures)
        else:
            policies, log_std = policy(architectures)
        mean = forward_mean(policies, observation, policy.slope)
        ((mean * weight).sum() + (log_std * weight[:, 0]).sum()).backward()
        found = {
            name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None
        }
        policy.zero_grad(set_to_none=True)
        return mean.detach(), found

    mean, layer_by_layer = gradients(False)
    padded_mean, padded = gradients(True)
    torch.testing.assert_close(padded_mean, mean, rtol=1e-5, atol=1e-5)
    assert layer_by_layer.keys() <= padded.keys()
    for name, gradient in padded.items():
        expected = layer_by_layer.get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5, msg=name)
