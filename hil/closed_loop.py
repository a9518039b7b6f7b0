"""The quadrotor simulator flown by a package: one flight step by step, or thousands at once.

Whoever answers the observations is the pilot: a device behind a link, the host-compiled policy.c
or the run's own torch policy. Equal seeds give each the same vehicle, start, goals and noise.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hil import contract
from hil.contract import Command, Floats
from hil.errors import HilError
from hil.link import Ask, Link
from hil.package import DevicePackage
from targets.host import Answer

if TYPE_CHECKING:
    from hyperppo.checkpoint import Run
    from hyperppo.envs.quadrotor import QuadrotorEnv
    from hyperppo.episodes import Episodes

Progress = Callable[[str, int, int], None]  # stage, done, of

SETTLED_S = 3.0  # the tracking error counts from here on, as in the training's metrics
CHUNK = 2048  # episodes flown together
CONFIDENCE_Z = 1.959964  # two-sided 95 % of the normal distribution


@dataclasses.dataclass(frozen=True)
class Flight:
    """One flight, sampled at the control rate."""

    control_hz: int
    position: Floats  # (T, 3) m, world
    goal: Floats  # (T, 3) m, world
    observation: Floats  # (T, obs_dim)
    action: Floats  # (T, 4) the pilot's answers, in [-1, 1]
    crashed: bool

    @property
    def error_m(self) -> Floats:
        """Distance to the goal, (T,) m."""
        distance: Floats = np.linalg.norm(self.position - self.goal, axis=1)
        return distance

    @property
    def tracking_error_m(self) -> float | None:
        """Mean distance to the goal after the first seconds; None when it did not last so long."""
        settled = self.error_m[round(SETTLED_S * self.control_hz) :]
        return float(settled.mean()) if len(settled) else None


class DevicePilot:
    """Has a device answer, one observation at a time, and keeps what each answer took."""

    def __init__(self, link: Link, act_dim: int) -> None:
        self._link = link
        self._parts = tuple(bytes([p]) for p in range(contract.run_parts(act_dim)))
        self._act_dim = act_dim
        self.cycles: list[int] = []
        self.timer_us: list[int] = []
        self.link_ms: list[float] = []  # round trip of one step, the device's computing included

    def __call__(self, observations: Floats) -> Floats:
        """Actions (1, act_dim) for observations (1, obs_dim)."""
        start = time.monotonic()
        ask = Ask(Command.RUN, observations[0], self._parts)
        ((_, bodies),) = self._link.exchange([ask], window=1)
        cycles, us, action = contract.join_run(bodies, self._act_dim)
        self.cycles.append(cycles)
        self.timer_us.append(us)
        self.link_ms.append(1000 * (time.monotonic() - start))
        return action[None]


def open_run(package: DevicePackage, path: Path | None) -> Run:
    """The run that the package was compiled from, by default the shipped one. Raises HilError."""
    from hyperppo.checkpoint import load_run
    from hyperppo.errors import HyperPPOError
    from hyperppo.pretrained import path as shipped_run

    if "run" not in package.manifest:
        raise HilError(
            f"{package.path} was compiled from an ONNX file: no simulator of ours flies it; "
            "check it with hyperppo-hil run"
        )
    try:
        run = load_run(path if path is not None else shipped_run(package.target_name))
    except HyperPPOError as error:
        raise HilError(str(error)) from None
    wanted = package.manifest["run"].get("checkpoint_sha256")
    if run.checkpoint_sha256 != wanted:
        raise HilError(
            f"{package.path} was compiled from another run than {run.path}: say which with --run"
        )
    return run


def torch_answer(run: Run, package: DevicePackage) -> Answer:
    """The policy as it was trained. Raises HilError."""
    import torch

    from hyperppo.errors import HyperPPOError

    try:
        policy = run.policy(tuple(package.manifest["architecture"]["hidden"]))
    except HyperPPOError as error:
        raise HilError(str(error)) from None

    def answer(observations: Floats) -> Floats:
        with torch.inference_mode():
            actions: Floats = policy(torch.from_numpy(observations)).numpy()
        return actions

    return answer


def fly(
    run: Run, scenario: str, seconds: float, seed: int, pilot: Answer, tell: Progress
) -> Flight:
    """Flies until `seconds` have passed or the vehicle crashed. Raises HilError."""
    import torch

    env = _make_env(run, scenario, seconds, 1, seed)
    steps = env.episode_steps - 1  # after the last one the next episode would show
    rows: list[tuple[Floats, ...]] = []
    crashed = False
    with torch.inference_mode():
        seen, _ = env.reset()
        for number in range(steps):
            observation = seen.t().numpy().astype(np.float32)  # a copy, as all that is kept
            goal = env.goal_now()[0][:, 0].numpy().copy()
            place = env.world.state.position[:, 0].numpy().copy()
            action = pilot(observation)
            rows.append((place, goal, observation[0], action[0]))
            step = env.step(torch.from_numpy(np.ascontiguousarray(action.T)))
            seen = step.observation
            tell("flight", number + 1, steps)
            crashed = bool(step.terminated)
            if crashed:
                break
    position, goals, observations, actions = (np.stack(c) for c in zip(*rows, strict=True))
    return Flight(env.options.control_hz, position, goals, observations, actions, crashed)


def fly_many(
    run: Run, scenario: str, episodes: int, seed: int, pilot: Answer, tell: Progress
) -> Episodes:
    """Flies whole episodes of the run's own length, many side by side. Raises HilError."""
    from hyperppo.episodes import Episodes, fly_episodes, on_rows

    parts = []
    for start in range(0, episodes, CHUNK):
        count = min(CHUNK, episodes - start)

        def tell_chunk(fraction: float, start: int = start, count: int = count) -> None:
            tell("episodes", start + int(count * fraction), episodes)

        mixed = int(np.random.SeedSequence((seed, start)).generate_state(1)[0])
        env = _make_env(run, scenario, None, count, mixed)
        parts.append(fly_episodes(env, on_rows(pilot), tell_chunk))
    return Episodes(
        np.concatenate([p.returns for p in parts]),
        np.concatenate([p.crashed for p in parts]),
        {name: np.concatenate([p.metrics[name] for p in parts]) for name in parts[0].metrics},
    )


def mean_interval(values: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """Mean of (n,) values and the half width of its 95 % confidence interval."""
    if not len(values):
        return {"mean": None, "plus_minus": None}
    half = None
    if len(values) > 1:
        half = CONFIDENCE_Z * float(values.std(ddof=1)) / math.sqrt(len(values))
    return {"mean": float(values.mean()), "plus_minus": half}


def share_interval(hits: int, of: int) -> dict[str, float]:
    """A share and its 95 % interval. E. B. Wilson, JASA 22 (1927) 209."""
    z2 = CONFIDENCE_Z**2
    share = hits / of
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = CONFIDENCE_Z / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return {"share": share, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


def _make_env(
    run: Run, scenario: str, seconds: float | None, count: int, seed: int
) -> QuadrotorEnv:
    from hyperppo.envs.quadrotor import QuadrotorEnv
    from hyperppo.envs.registry import make_env
    from hyperppo.errors import HyperPPOError

    options: dict[str, Any] = {**run.config.env, "scenarios": {scenario: 1.0}}
    try:
        env = make_env(run.task, options, count, seed)
        if isinstance(env, QuadrotorEnv) and seconds is not None:
            options["episode_s"] = seconds + 1 / env.options.control_hz
            env = make_env(run.task, options, count, seed)
    except HyperPPOError as error:
        raise HilError(str(error)) from None
    if not isinstance(env, QuadrotorEnv):
        raise HilError(f"{run.path} was not trained on the quadrotor: nothing to fly")
    return env
