"""A small package with a policy written by hand, so that this room is tested without training."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compile.package import add_firmware_app, write_manifest
from hil.virtual_crazyflie import VirtualCrazyflie
from targets.target import load_target
from targets.toolchain import cross_prefix, link_image

OBS_DIM, ACT_DIM = 18, 4

POLICY_H = """\
#ifndef POLICY_H
#define POLICY_H
#define POLICY_OBS_DIM {obs}
#define POLICY_ACT_DIM {act}
void policy_step(const float observation[POLICY_OBS_DIM], float action[POLICY_ACT_DIM]);
int policy_self_test(void);
#endif
"""

# action_j = clip(0.5 obs_j - 0.25 obs_(j+1) + 0.5 previous_j), the last where it is observed: every
# product exact, so host and target agree.
POLICY_C = """\
#include "policy.h"
void policy_step(const float observation[POLICY_OBS_DIM], float action[POLICY_ACT_DIM])
{
    for (int j = 0; j < POLICY_ACT_DIM; j++) {
        float a = 0.5f * observation[j] - 0.25f * observation[j + 1];
#if POLICY_OBS_DIM > 18
        a += 0.5f * observation[18 + j];
#endif
        action[j] = a > 1.0f ? 1.0f : (a < -1.0f ? -1.0f : a);
    }
}
"""

POLICY_GOLDEN_H = """\
#include "policy.h"
int policy_self_test(void)
{
    float observation[POLICY_OBS_DIM] = {1.0f, 0.5f};
    float action[POLICY_ACT_DIM];
    policy_step(observation, action);
    return action[0] == %s ? 0 : 1;
}
"""


LINEAR_C = """\
#include "policy.h"
static const float weights[POLICY_ACT_DIM][POLICY_OBS_DIM] = {{ {weights} }};
static const float bias[POLICY_ACT_DIM] = {{ {bias} }};
void policy_step(const float observation[POLICY_OBS_DIM], float action[POLICY_ACT_DIM])
{{
    for (int j = 0; j < POLICY_ACT_DIM; j++) {{
        float a = bias[j];
        for (int k = 0; k < POLICY_OBS_DIM; k++) {{
            a += weights[j][k] * observation[k];
        }}
        action[j] = a > 1.0f ? 1.0f : (a < -1.0f ? -1.0f : a);
    }}
}}
"""


def linear_source(weights: np.ndarray, bias: np.ndarray) -> str:
    def literals(values: np.ndarray) -> str:
        return ", ".join(f"{float(v)!r}f" for v in values)

    rows = ", ".join(f"{{{literals(row)}}}" for row in weights)
    return LINEAR_C.format(weights=rows, bias=literals(bias))


def reference(observations: np.ndarray, act_dim: int) -> np.ndarray:
    first, second = observations[:, :act_dim], observations[:, 1 : act_dim + 1]
    answer = np.float32(0.5) * first - np.float32(0.25) * second
    if observations.shape[1] > OBS_DIM:
        answer += np.float32(0.5) * observations[:, OBS_DIM : OBS_DIM + act_dim]
    clipped: np.ndarray = np.clip(answer, -1, 1).astype(np.float32)
    return clipped


def build_package(
    folder: Path,
    *,
    act_dim: int = ACT_DIM,
    golden: str = "0.375f",
    image: bool = True,
    conventions: dict[str, Any] | None = None,
    linear: tuple[np.ndarray, np.ndarray] | None = None,
    checkpoint: str = "none",
) -> Path:
    folder.mkdir(parents=True)
    obs_dim = OBS_DIM + ACT_DIM * (conventions or {}).get("previous_actions", 0)
    (folder / "policy.h").write_text(POLICY_H.format(obs=obs_dim, act=act_dim))
    (folder / "policy.c").write_text(linear_source(*linear) if linear else POLICY_C)
    (folder / "policy_golden.h").write_text(POLICY_GOLDEN_H % golden)
    observations = np.random.default_rng(0).normal(size=(1024, obs_dim)).astype(np.float32)
    if linear:
        actions = np.clip(observations @ linear[0].T + linear[1], -1, 1).astype(np.float32)
    else:
        actions = reference(observations, act_dim)
    np.savez(folder / "observations.npz", observations=observations, actions=actions)
    add_firmware_app(folder, conventions or {}, load_target("crazyflie21"))
    if image:
        app = folder / "crazyflie_app"
        (folder / "bare_metal").mkdir()
        link_image(
            load_target("crazyflie21"),
            [app / "src" / "hppo_device.c", app / "bare_metal" / "main.c"],
            folder / "bare_metal" / "policy.elf",
            policy_source=folder / "policy.c",
            include=[app / "src"],
        )
    write_manifest(
        folder,
        {
            "format": "hyperppo-package",
            "format_version": 1,
            "architecture": {"name": "none", "hidden": [], "params": 76, "macs": 72},
            "precision": "f32",
            "run": {"name": "none", "task": "quadrotor", "checkpoint_sha256": checkpoint},
            "conventions": conventions or {},
            "target": {
                "name": "crazyflie21",
                "core": "cortex_m4f",
                "clock_hz": 168_000_000,
                "deadline_us": 1000.0,
                "control_hz": 100,
            },
            "cycles": {
                "emulated": {"source": "model", "cycles_p1": 300, "cycles_p2": 320, "band": 0.2}
            },
            "numerics": {"tolerance": 1e-5},
            "toolchain": {"compiler": "arm-none-eabi-gcc", "flags": ["-O2"]},
        },
    )
    return folder


@pytest.fixture(scope="session")
def make_package() -> Callable[..., Path]:
    """build_package: (folder, *, act_dim, golden, image) -> folder."""
    return build_package


@pytest.fixture(scope="session")
def host_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without an image: needs no cross-compiler."""
    return build_package(tmp_path_factory.mktemp("packages") / "host", image=False)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = cross_prefix(load_target("crazyflie21"))
    if shutil.which(prefix + "gcc") is None:
        pytest.skip(f"{prefix}gcc is not installed")
    return build_package(tmp_path_factory.mktemp("packages") / "tiny")


@pytest.fixture(autouse=True)
def no_calibrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As for a user who has never measured a device."""
    folder = tmp_path / "calibrations"
    monkeypatch.setenv("HYPERPPO_CALIBRATIONS", str(folder))
    return folder


@pytest.fixture
def device(package: Path) -> Iterator[VirtualCrazyflie]:
    served = VirtualCrazyflie(package / "bare_metal" / "policy.elf", "crazyflie21", port=0)
    thread = threading.Thread(target=served.serve)
    thread.start()
    yield served
    served.stop()
    thread.join()
