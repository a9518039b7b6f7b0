"""The vectorised quadrotor task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hyperppo.envs.base import Step
from hyperppo.envs.quadrotor import goals, noise, observation
from hyperppo.envs.quadrotor.advance import Outcome, advance
from hyperppo.envs.quadrotor.memory import ACT_DIM
from hyperppo.envs.quadrotor.noise import NoisePool
from hyperppo.envs.quadrotor.options import QuadrotorOptions
from hyperppo.envs.quadrotor.spawn import spawn
from hyperppo.envs.quadrotor.world import (
    World,
    copy_over,
    critic_dim,
    cut,
    goal_now,
    look,
    overwrite,
    replace_where,
    same,
    tensors,
)
from hyperppo.errors import HyperPPOError

_SPARES = 1024  # episode starts drawn together: one by one they would cost a step's time
_SPARE_STEPS = 32  # for which every environment's spare start is kept on a GPU


class QuadrotorEnv:
    """N quadrotors that fly to goals; see `QuadrotorOptions` for what is randomised and rewarded.

    Episodes end early (`terminated`, a crash) beyond the allowed distance, tilt (90 degrees) or
    spin, and otherwise at the time limit (`truncated`).
    """

    act_dim = ACT_DIM

    def __init__(
        self,
        num_envs: int,
        options: QuadrotorOptions,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        unknown = set(options.scenarios) - set(goals.SCENARIOS)
        if unknown or sum(options.scenarios.values()) <= 0:
            raise HyperPPOError(
                f"unknown scenario {', '.join(sorted(unknown)) or '(none given)'}: "
                f"choose from {', '.join(goals.SCENARIOS)}"
            )
        if options.physics_hz % options.control_hz:
            raise HyperPPOError("physics_hz must be a multiple of control_hz")
        self.num_envs = num_envs
        self.options = options
        self.device = torch.device(device)
        self.obs_dim = observation.observation_dim(options)
        self.critic_dim = critic_dim(options)
        self.episode_steps = round(options.episode_s * options.control_hz)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self._noise = NoisePool(seed, self.generator)
        self._hardness = 1.0
        self._differentiated = False
        self._masked = self.device.type != "cpu"  # no step asks a GPU what has happened
        self.world = spawn(options, num_envs, self.generator)
        self._spares, self._seen_of_spares = self._draw_spares()
        self._used = 0

    def set_progress(self, progress: float) -> None:
        """Harden the episodes that follow: see `QuadrotorOptions.ramp`."""
        begin, end = self.options.ramp
        if end > begin:
            self._hardness = min(1.0, max(0.0, (progress - begin) / (end - begin)))

    def reset(self) -> tuple[Tensor, Tensor]:
        """Start every episode anew."""
        self.world, seen = self._start(self.num_envs)
        return seen[: self.obs_dim], seen

    def desynchronise(self) -> None:
        """Spread the episodes' phases, so that they do not all end in the same rollout."""
        phase = torch.rand(self.num_envs, generator=self.generator, device=self.device)
        self.world.time.copy_((phase * self.episode_steps).floor())

    def goal_now(self) -> tuple[Tensor, Tensor]:
        """Goal position (3, N) m and velocity (3, N) m/s, world frame, at this moment."""
        return goal_now(self.world, self.options.control_hz)

    def step(self, action: Tensor) -> Step:
        """One control step; environments that ended are reset."""
        draws = noise.of_a_step(self._noise, self.options, self.num_envs)
        leaning_costs = self._differentiated and self.options.reward.tilt > 0
        given = (action.clamp(-1.0, 1.0), draws, self.options, leaning_costs)
        got = advance(self.world, *given)
        return self._as_step(got, self._turn_over(got))

    def _as_step(self, got: Outcome, final: Tensor) -> Step:
        return Step(
            observation=got.seen[: self.obs_dim],
            critic_input=got.seen,
            reward=got.reward,
            terminated=got.crashed,
            truncated=got.truncated,
            final_critic_input=final,
            metrics={"tracking_error_m": got.error, "height_error_m": got.height},
        )

    def _turn_over(self, got: Outcome) -> Tensor:
        """Go on to the next goal segment or episode where one is over; `seen` shows it, in place.

        Returns the critic's input before the reset, (critic_dim, K), of the K truncated episodes;
        of all N where that is not asked.
        """
        ended = got.crashed | got.truncated
        if self._masked:
            return self._turn_over_masked(ended, got.turning, got.seen)
        events = torch.nonzero(ended | got.turning).squeeze(1)
        self._next_segment(events[got.turning[events]])
        final = got.seen[:, events[got.truncated[events]]]
        self._restart(events[ended[events]], got.seen)
        return final

    def _turn_over_masked(self, ended: Tensor, turning: Tensor, seen: Tensor) -> Tensor:
        """`_turn_over` with the same operations whatever happened; every environment has a spare
        start, drawn anew after as many steps as an episode that ends at once takes to end again.
        """
        world = self.world
        replace_where(world.goal, turning, goals.next_segment(world.goal, self.generator))
        world.segment_time.masked_fill_(turning, 0)
        capturing = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
        if self._used >= _SPARE_STEPS and not capturing:
            self._refill()
        self._used += 1
        replace_where(world, ended, self._spares)
        final = seen.clone()
        seen.copy_(torch.where(ended, self._seen_of_spares, seen))
        return final

    def _next_segment(self, index: Tensor) -> None:
        if len(index):
            goal = self.world.goal
            parts = {name: tensor[..., index] for name, tensor in tensors(goal)}
            overwrite(goal, index, goals.next_segment(replace(goal, **parts), self.generator), 0)
            self.world.segment_time[index] = 0

    def _draw_spares(self) -> tuple[World, Tensor]:
        """Episode starts, and how they look."""
        count = self.num_envs if self._masked else _SPARES
        return self._start(count)

    def _start(self, count: int) -> tuple[World, Tensor]:
        world = spawn(self.options, count, self.generator, self._hardness)
        draws = noise.of_a_start(self._noise, count)
        return world, look(world, self.options, draws, first=True).seen

    def _refill(self) -> None:
        spares, seen = self._draw_spares()
        self._used = 0
        if self._masked:  # in place: a captured rollout looks there
            copy_over(self._spares, spares)
            self._seen_of_spares.copy_(seen)
        else:
            self._spares, self._seen_of_spares = spares, seen

    def refresh(self) -> None:
        """Draw new episode starts."""
        self._refill()

    @contextmanager
    def differentiable(self) -> Iterator[None]:
        """Within this, gradients flow from what steps return to the actions before it.

        A crash has none; what stands for it is a cost of coming near one (`RewardWeights.tilt`).
        """
        self._differentiated = True
        self._cut()
        try:
            yield
        finally:
            self._differentiated = False
        self._cut()

    def _cut(self) -> None:
        cut(self.world)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within this, steps end with the state in the very tensors where it was."""
        before = same(self.world)
        yield
        copy_over(before, self.world)
        self.world = before

    def _restart(self, index: Tensor, seen: Tensor) -> None:
        """Start new episodes in the environments `index`; `seen` shows them, in place."""
        for part in torch.split(index, _SPARES) if len(index) else ():
            if self._used + len(part) > _SPARES:
                self._refill()
            self._overwrite(part, self._used)
            taken = slice(self._used, self._used + len(part))
            seen.index_copy_(1, part, self._seen_of_spares[:, taken])
            self._used += len(part)

    def _overwrite(self, index: Tensor, first: int) -> None:
        overwrite(self.world, index, self._spares, first)

    def conventions(self) -> dict[str, Any]:
        """See docs/conventions.md."""
        options = self.options
        return {
            "observation": list(observation.blocks(options)),
            "previous_actions": options.previous_actions,
            "action_average_s": list(options.action_average_s),
            "integral_clip_m_s": options.integral_clip_m_s,
            "integral_leak_per_s": options.integral_leak_per_s,
            "position_clip_m": options.position_clip_m,
            "velocity_limit_m_s": options.velocity_limit_m_s,
            "control_hz": options.control_hz,
            "body_frame": "FLU: x forward, y left, z up",
            "world_frame": "ENU: x east, y north, z up",
            "action": "[-1, 1]^4; (a + 1) / 2 = fraction of full motor thrust (0.12 N a motor), "
            "M1..M4 = front right, back right, back left, front left",
        }

    def state_dict(self) -> dict[str, Tensor]:
        """All state, the random generator's included."""
        return {
            "generator": self.generator.get_state(),
            "spares_used": torch.tensor(self._used),
            "spares_seen": self._seen_of_spares,
            **{f"world.{name}": tensor for name, tensor in tensors(self.world)},
            **{f"spares.{name}": tensor for name, tensor in tensors(self._spares)},
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict()`."""
        self.generator.set_state(state["generator"].cpu())
        self._used = int(state["spares_used"])
        self._seen_of_spares.copy_(state["spares_seen"])
        for name, world in (("world", self.world), ("spares", self._spares)):
            for key, tensor in tensors(world):
                tensor.copy_(state[f"{name}.{key}"])
