"""What this room takes from a package: the recorded inferences, the image and its identity."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hil.contract import Floats
from hil.errors import HilError


@dataclasses.dataclass(frozen=True)
class DevicePackage:
    """A verified package, as the harness and the virtual device use it."""

    path: Path
    manifest: Mapping[str, Any]
    observations: Floats  # (n, obs_dim), recorded in closed loop
    actions: Floats  # (n, act_dim), the reference: what the host-compiled policy answered

    @property
    def package_hash(self) -> bytes:
        """8 bytes: which policy a device must run to match this package."""
        return bytes.fromhex(self.manifest["hashes"]["package"])

    @property
    def target_name(self) -> str:
        """Name of the target that the package was compiled for."""
        return str(self.manifest["target"]["name"])

    @property
    def tolerance(self) -> float:
        """Largest difference from the reference that counts as equal."""
        return float(self.manifest["numerics"]["tolerance"])

    @property
    def elf(self) -> Path:
        """The bare-metal image. Raises HilError when the package has none."""
        self._only_c()
        image = self.path / "bare_metal" / "policy.elf"
        if not image.is_file():
            raise HilError(
                f"{self.path} was compiled without a cross-compiler and has no image to run: "
                "sudo apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi, "
                "then run hyperppo-compile again"
            )
        return image

    @property
    def app(self) -> Path:
        """The Crazyflie app. Raises HilError when the package has none."""
        self._only_c()
        folder = self.path / "crazyflie_app"
        if not folder.is_dir():
            raise HilError(
                f"{self.path} has no crazyflie_app: its observation is not one that the firmware "
                "can fill (an ONNX file, or a task that is no flight of that vehicle)"
            )
        return folder

    def _only_c(self) -> None:
        if self.manifest.get("backend") == "tflm":
            raise HilError(
                f"{self.path} has the tflm backend, without the device contract: the virtual "
                "device and the firmware app take packages of hyperppo-compile --backend c"
            )

    def elf_sha256(self) -> str | None:
        """Hash of the bare-metal image; None when there is none."""
        image = self.path / "bare_metal" / "policy.elf"
        return hashlib.sha256(image.read_bytes()).hexdigest() if image.is_file() else None


def open_package(path: Path) -> DevicePackage:
    """Opens a package and checks its hashes. Raises HilError."""
    from compile.errors import CompileError
    from compile.package import load_package

    try:
        package = load_package(path)
    except CompileError as error:
        raise HilError(str(error)) from None
    try:
        with np.load(path / "observations.npz", allow_pickle=False) as recorded:
            observations = np.asarray(recorded["observations"], dtype=np.float32)
            actions = np.asarray(recorded["actions"], dtype=np.float32)
    except (OSError, KeyError, ValueError) as error:
        raise HilError(f"{path / 'observations.npz'} cannot be read: {error}") from None
    if observations.ndim != 2 or actions.ndim != 2 or not 0 < len(observations) == len(actions):
        raise HilError(f"{path / 'observations.npz'} does not pair observations with actions")
    opened = DevicePackage(path, package.manifest, observations, actions)
    try:
        _ = opened.package_hash, opened.target_name, opened.tolerance
    except (KeyError, TypeError, ValueError):
        raise HilError(
            f"{path / 'manifest.json'} misses fields of format 1; run hyperppo-compile again"
        ) from None
    return opened
