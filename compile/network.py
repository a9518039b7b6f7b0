"""A policy as plain data: a chain of dense layers with their activations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from compile.activation import Form, activate
from compile.errors import CompileError

if TYPE_CHECKING:
    from torch import nn

_T = TypeVar("_T")
ACTIVATIONS = ("leaky_relu", "relu", "elu", "tanh", "sigmoid", "clip", "identity")


@dataclass(frozen=True)
class Layer:
    """``activation(weight @ x + bias)``; the name is the one of the ONNX node it becomes."""

    name: str
    weight: NDArray[np.float32]  # (out, in)
    bias: NDArray[np.float32]  # (out,)
    activation: str  # one of ACTIVATIONS

    @property
    def n_in(self) -> int:
        """Inputs of the layer."""
        return int(self.weight.shape[1])

    @property
    def n_out(self) -> int:
        """Units of the layer."""
        return int(self.weight.shape[0])


@dataclass(frozen=True)
class Network:
    """Layers in the order of computation; raw observation in, action out."""

    layers: tuple[Layer, ...]
    negative_slope: float = 0.2  # of every leaky_relu
    clip: tuple[float, float] = (-1.0, 1.0)  # of every clip
    elu_alpha: float = 1.0  # of every elu

    def __post_init__(self) -> None:
        if not self.layers:
            raise CompileError("the network has no layer")
        if not np.isfinite(self.elu_alpha):
            raise CompileError("the ELU alpha is not a finite number")
        for layer in self.layers:
            if layer.activation not in ACTIVATIONS:
                raise CompileError(
                    f"layer {layer.name}: activation '{layer.activation}' is not supported; "
                    f"supported: {', '.join(ACTIVATIONS)}"
                )
            if layer.weight.ndim != 2 or layer.bias.shape != (layer.n_out,):
                raise CompileError(f"layer {layer.name}: weight and bias do not fit together")
            if not (np.isfinite(layer.weight).all() and np.isfinite(layer.bias).all()):
                raise CompileError(f"layer {layer.name}: a weight is not a finite number")
        for before, after in zip(self.layers, self.layers[1:], strict=False):
            if after.n_in != before.n_out:
                raise CompileError(
                    f"layer {after.name} takes {after.n_in} inputs, but {before.name} gives "
                    f"{before.n_out}"
                )

    @property
    def obs_dim(self) -> int:
        """Length of the observation."""
        return self.layers[0].n_in

    @property
    def act_dim(self) -> int:
        """Length of the action."""
        return self.layers[-1].n_out

    @property
    def hidden(self) -> tuple[int, ...]:
        """Hidden widths, the architecture."""
        return tuple(layer.n_out for layer in self.layers[:-1])

    @property
    def name(self) -> str:
        """The architecture as text."""
        return ",".join(map(str, self.hidden)) or "linear"

    @property
    def params(self) -> int:
        """Number of weights and biases."""
        return sum(layer.weight.size + layer.bias.size for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(layer.weight.size for layer in self.layers)

    def forward(self, observation: NDArray[np.floating]) -> NDArray[np.float64]:
        """The reference in float64: (n, obs_dim) -> (n, act_dim)."""
        x = np.asarray(observation, dtype=np.float64)
        for layer in self.layers:
            x = x @ layer.weight.astype(np.float64).T + layer.bias.astype(np.float64)
            x = activate(layer.activation, x, self)
        return x


def folded(layer: Layer, form: Form, previous: Form) -> Layer:
    """The layer with what its own form and the previous layer's ask of the weights."""
    weight = layer.weight.astype(np.float64)
    bias = layer.bias.astype(np.float64) + weight.sum(axis=1) * previous.offset
    return replace(
        layer,
        weight=(weight * (previous.scale * form.before)).astype(np.float32),
        bias=(bias * form.before).astype(np.float32),
    )


def network_from_torch(policy: nn.Sequential) -> Network:
    """Read a Sequential of Linear, LeakyReLU, ReLU, ELU, Tanh, Sigmoid and Hardtanh modules.

    Raises CompileError on any other module, or on two slopes, alphas or clip ranges in one policy.
    """
    from torch import nn

    layers: list[Layer] = []
    slopes: set[float] = set()
    alphas: set[float] = set()
    clips: set[tuple[float, float]] = set()
    activation = "identity"
    pending: nn.Linear | None = None

    def close() -> None:
        if pending is not None:
            bias = pending.bias
            layers.append(
                Layer(
                    name=f"layer_{len(layers)}",
                    weight=pending.weight.detach().cpu().numpy().astype(np.float32),
                    bias=(
                        np.zeros(pending.out_features, np.float32)
                        if bias is None
                        else bias.detach().cpu().numpy().astype(np.float32)
                    ),
                    activation=activation,
                )
            )

    for module in policy:
        if isinstance(module, nn.Linear):
            close()
            pending, activation = module, "identity"
            continue
        if pending is None or activation != "identity":
            raise CompileError(f"the policy applies {module} where a Linear layer is expected")
        if isinstance(module, nn.LeakyReLU):
            activation = "leaky_relu"
            slopes.add(module.negative_slope)
        elif isinstance(module, nn.Hardtanh):
            activation = "clip"
            clips.add((float(module.min_val), float(module.max_val)))
        elif isinstance(module, nn.ReLU):
            activation = "relu"
        elif isinstance(module, nn.ELU):
            activation = "elu"
            alphas.add(float(module.alpha))
        elif isinstance(module, nn.Tanh):
            activation = "tanh"
        elif isinstance(module, nn.Sigmoid):
            activation = "sigmoid"
        else:
            raise CompileError(
                f"the policy has a {type(module).__name__} module; supported: "
                "Linear, LeakyReLU, ReLU, ELU, Tanh, Sigmoid, Hardtanh"
            )
    close()
    return Network(
        tuple(layers),
        negative_slope=the_one(slopes, "leaky ReLU slope", 0.2),
        clip=the_one(clips, "clip range", (-1.0, 1.0)),
        elu_alpha=the_one(alphas, "ELU alpha", 1.0),
    )


def the_one(values: set[_T], what: str, default: _T) -> _T:
    """The single member of the set, or the default of an empty one; CompileError on several."""
    if len(values) > 1:
        raise CompileError(f"the policy has more than one {what}: {sorted(map(str, values))}")
    return next(iter(values), default)
