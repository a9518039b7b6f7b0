"""Files as real exporters write them, read and run beside onnxruntime on the very file."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compile.network import Network
from compile.onnx_import import read_policy
from compile.source_onnx import run_original

pytestmark = pytest.mark.filterwarnings("ignore")
DYNAMO = {
    "fixed batch": {"dynamo": True},
    "any batch": {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch")},)},
    "as traced": {"dynamo": True, "optimize": False},
}
TORCHSCRIPT = {
    "fixed batch": {"dynamo": False},
    "any batch": {"dynamo": False, "dynamic_axes": {"obs": {0: "batch"}}},
}
EXPORTERS = [
    pytest.param({"input_names": ["obs"], **options}, id=f"{exporter} {name}")
    for exporter, variants in (("dynamo", DYNAMO), ("TorchScript", TORCHSCRIPT))
    for name, options in variants.items()
]


@pytest.fixture(autouse=True)
def quiet() -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)


def agrees(path: Path, output: str | None = None) -> Network:
    """The network in the file, which computes what onnxruntime does."""
    imported = read_policy(path, output)
    network = imported.network
    normal = 3 * np.random.default_rng(0).standard_normal((64, network.obs_dim))
    observations = ((normal - imported.shift) / imported.scale).astype(np.float32)
    expected = run_original(path, imported, observations)
    assert np.abs(expected - network.forward(observations)).max() < 3e-6
    assert expected.std(axis=0).min() > 1e-3  # it does something
    return network


class Walker(nn.Module):
    """A normaliser with a clip, every activation, a scaled action: what exporters have to spell."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("mean", 3 * torch.randn(11))
        self.register_buffer("var", torch.rand(11) + 0.1)
        self.body = nn.Sequential(
            nn.Linear(11, 16), nn.ELU(0.7), nn.Linear(16, 12), nn.Sigmoid(), nn.Linear(12, 10),
            nn.LeakyReLU(0.1), nn.Dropout(), nn.Linear(10, 8, bias=False), nn.ReLU(),
            nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3),
        )  # fmt: skip
        with torch.no_grad():
            for parameter in self.body[:-1].parameters():
                parameter.mul_(2)
            self.body[-1].bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.clamp((x - self.mean) / torch.sqrt(self.var + 1e-5), -5, 5)
        return torch.clamp(self.body(x), -1, 1) * torch.tensor([1.0, 2.0, 3.0]) + 0.5


@pytest.mark.parametrize("options", EXPORTERS)
def test_torch(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "walker.onnx"
    observation = torch.zeros(2 if options.keys() & {"dynamic_shapes", "dynamic_axes"} else 1, 11)
    torch.onnx.export(Walker().eval(), (observation,), str(path), verbose=False, **options)
    network = agrees(path)
    assert [layer.activation for layer in network.layers] == [
        "clip", "elu", "sigmoid", "leaky_relu", "relu", "tanh", "clip", "identity",
    ]  # fmt: skip
    assert (network.negative_slope, network.elu_alpha) == (0.1, 0.7)


class Split(nn.Module):
    """Mean and scale from one head, as Brax and Sample Factory have it; observation of two axes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.head = nn.Linear(6, 5), nn.Linear(5, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        location, scale = torch.chunk(self.head(torch.tanh(self.hidden(x.flatten(1)))), 2, -1)
        return torch.tanh(location), nn.functional.softplus(scale)


@pytest.mark.parametrize("dynamo", [True, False])
def test_one_of_two_outputs(dynamo: bool, tmp_path: Path) -> None:
    path = tmp_path / "split.onnx"
    torch.onnx.export(
        Split().eval(), (torch.zeros(1, 2, 3),), str(path), dynamo=dynamo, verbose=False,
        output_names=["location", "scale"],
    )  # fmt: skip
    assert agrees(path, "location").hidden == (5,)  # and of the head, half is left


def test_weights_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    module = nn.Sequential(nn.Linear(40, 64), nn.Tanh(), nn.Linear(64, 2)).eval()
    torch.onnx.export(module, (torch.zeros(1, 40),), str(path), dynamo=True, verbose=False)
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location="policy.bin", size_threshold=0)
    assert (tmp_path / "policy.bin").is_file()
    agrees(path)


@pytest.mark.parametrize("dynamo", [True, False])
def test_stable_baselines3_ppo(
    dynamo: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its documentation's recipe: the whole policy, deterministic; action, value, log-density."""
    # The dynamo exporter cannot trace the checks that torch's distributions make.
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", not dynamo)
    sb3 = pytest.importorskip("stable_baselines3")
    gymnasium = pytest.importorskip("gymnasium")

    class Onnxable(nn.Module):
        def __init__(self, policy: Any) -> None:
            super().__init__()
            self.policy = policy

        def forward(self, observation: torch.Tensor) -> Any:
            return self.policy(observation, deterministic=True)

    model = sb3.PPO("MlpPolicy", gymnasium.make("Pendulum-v1"), seed=0, device="cpu")
    nn.init.orthogonal_(model.policy.action_net.weight)  # its own start is almost 0
    path = tmp_path / "ppo.onnx"
    torch.onnx.export(
        Onnxable(model.policy), (torch.zeros(1, 3),), str(path), dynamo=dynamo, verbose=False,
        opset_version=18, input_names=["input"], output_names=["action", "value", "log_prob"],
    )  # fmt: skip
    network = agrees(path, "action")
    assert network.hidden == (64, 64)
    assert [layer.activation for layer in network.layers] == ["tanh", "tanh", "identity"]


def test_stable_baselines3_sac(tmp_path: Path) -> None:
    """Its documentation's recipe: the actor's mean, squashed."""
    sb3 = pytest.importorskip("stable_baselines3")
    gymnasium = pytest.importorskip("gymnasium")
    model = sb3.SAC("MlpPolicy", gymnasium.make("Pendulum-v1"), seed=0, device="cpu", buffer_size=1)
    actor = nn.Sequential(model.actor.latent_pi, model.actor.mu, nn.Tanh())
    path = tmp_path / "sac.onnx"
    torch.onnx.export(actor, (torch.zeros(1, 3),), str(path), dynamo=True, verbose=False)
    network = agrees(path)
    assert network.hidden == (256, 256)
    assert [layer.activation for layer in network.layers] == ["relu", "relu", "tanh"]


def test_rsl_rl(tmp_path: Path) -> None:
    """The runner's own export of an actor with its observation normaliser."""
    pytest.importorskip("rsl_rl")
    from rsl_rl.models import MLPModel
    from rsl_rl.runners import OnPolicyRunner
    from tensordict import TensorDict

    torch.manual_seed(0)
    observations = TensorDict({"policy": 4 * torch.randn(500, 12) + 20}, batch_size=[500])
    gaussian = {"class_name": "rsl_rl.modules.distribution:GaussianDistribution", "init_std": 1.0}
    actor = MLPModel(
        observations, {"actor": ["policy"]}, "actor", 4, [32, 16],
        obs_normalization=True, distribution_cfg=gaussian,
    )  # fmt: skip
    actor.train()
    actor.update_normalization(observations)
    runner: Any = SimpleNamespace(alg=SimpleNamespace(get_policy=lambda: actor))
    OnPolicyRunner.export_policy_to_onnx(runner, str(tmp_path))
    network = agrees(tmp_path / "policy.onnx")
    assert network.hidden == (32, 16)  # the normaliser is folded in
    assert [layer.activation for layer in network.layers] == ["elu", "elu", "identity"]
    imported = read_policy(tmp_path / "policy.onnx")
    assert np.abs(-imported.shift / imported.scale - 20).max() < 1
