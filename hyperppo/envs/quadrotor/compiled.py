"""The same quadrotors with their step compiled (torch.compile), for long trainings on a CPU.

Plain torch spends most of a step's time on launching some hundred operations, and as much again on
the way back where gradients are taken. Compiled, a step is one call.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch._dynamo.config as dynamo
import torch._functorch.config as functorch
import torch._inductor.config as inductor
from torch import Tensor

from hyperppo.envs.base import Step
from hyperppo.envs.quadrotor import goals, noise
from hyperppo.envs.quadrotor.advance import Outcome, advance
from hyperppo.envs.quadrotor.env import QuadrotorEnv
from hyperppo.envs.quadrotor.noise import Draws
from hyperppo.envs.quadrotor.options import QuadrotorOptions
from hyperppo.envs.quadrotor.packed import Layout, columns, layout_of, pack
from hyperppo.envs.quadrotor.world import World


def _step(
    moving: Tensor,
    fixed: Tensor,
    action: Tensor,
    draws: Draws,
    layout: Layout,
    options: QuadrotorOptions,
    leaning_costs: bool,
) -> tuple[Tensor, Outcome]:
    world = columns(layout, moving, fixed)
    got = advance(world, action.clamp(-1.0, 1.0), draws, options, leaning_costs)
    world.segment_time = world.segment_time.masked_fill(got.turning, 0.0)
    return pack(world, layout.moving), got


dynamo.recompile_limit = 64  # each task and number of environments is a variant of its own
inductor.compile_threads = 1  # no other processes: there is but one thing to compile
functorch.activation_memory_budget = 0.0  # numbers are quicker computed again than kept
_compiled = torch.compile(
    _step,
    fullgraph=True,
    dynamic=False,
    options={
        # Joined rows are written where they belong, instead of each being chosen among all.
        "max_pointwise_cat_inputs": 0,
        # A few long loops: most of the time goes to reading and writing what lies between two.
        "max_fusion_size": 1000,
        "cpp.max_horizontal_fusion_size": 1000,
    },
)


class CompiledQuadrotorEnv(QuadrotorEnv):
    """`QuadrotorEnv` on a CPU; what it returns differs by rounding."""

    @property
    def world(self) -> World:
        """Views of the packed state."""
        return columns(self._layout, self._moving, self._fixed)

    @world.setter
    def world(self, world: World) -> None:
        self._layout = layout_of(world)
        self._moving, self._fixed = (
            pack(world, rows) for rows in (self._layout.moving, self._layout.fixed)
        )

    def step(self, action: Tensor) -> Step:
        """One control step; environments that ended are reset."""
        draws = noise.of_a_step(self._noise, self.options, self.num_envs)
        leaning_costs = self._differentiated and self.options.reward.tilt > 0
        given = (draws, self._layout, self.options, leaning_costs)
        self._moving, got = _compiled(self._moving, self._fixed, action, *given)
        if self._differentiated:  # starts are written there, and the graph may hold on to it
            got = replace(got, seen=got.seen.clone())
        return self._as_step(got, self._turn_over(got))

    def _cut(self) -> None:
        # With a gradient from the first step on: else that step would be compiled for itself.
        self._moving = self._moving.detach().clone().requires_grad_(self._differentiated)
        self._fixed = self._fixed.clone()  # a rollout in inference mode may have left it

    def _next_segment(self, index: Tensor) -> None:
        if len(index):
            some = columns(self._layout, self._moving.detach()[:, index], self._fixed[:, index])
            some.goal = goals.next_segment(some.goal, self.generator)
            self._fixed = self._fixed.index_copy(1, index, pack(some, self._layout.fixed))

    def _draw_spares(self) -> tuple[World, Tensor]:
        spares, seen = super()._draw_spares()
        self._packed_spares = pack(spares, self._layout.moving), pack(spares, self._layout.fixed)
        return columns(self._layout, *self._packed_spares), seen

    def _overwrite(self, index: Tensor, first: int) -> None:
        taken = slice(first, first + len(index))
        moving, fixed = self._packed_spares
        self._moving = self._moving.index_copy(1, index, moving[:, taken])
        self._fixed = self._fixed.index_copy(1, index, fixed[:, taken])
