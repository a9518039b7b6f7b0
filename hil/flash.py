"""`hyperppo-hil flash`: the app built into a firmware tree, and the firmware put on a Crazyflie."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

from hil.errors import HilError
from hil.package import DevicePackage

Progress = Callable[[str, int, int], None]  # stage, done, of

FILES_IN_A_BUILD = 450  # about so many are compiled; only the progress bar goes by it
RAM_ORIGINS = (0x1000_0000, 0x2000_0000)  # RM0090 2.3.1: CCM and SRAM, where a stack may begin


@dataclasses.dataclass(frozen=True)
class Firmware:
    """A built firmware that holds the package's app."""

    binary: Path
    elf: Path
    size: int  # bytes, from the start of the flash that the bootloader leaves
    origin: int
    room: int  # bytes of that flash


def build(package: DevicePackage, base: Path, out: Path, tell: Progress) -> Firmware:
    """Builds the package's app with the firmware tree `base` in the folder `out`.

    A second build there compiles only what has changed. Raises HilError.
    """
    if not (base / "tools" / "make" / "oot.mk").is_file():
        raise HilError(
            f"{base} is no Crazyflie firmware (no tools/make/oot.mk); get it with "
            "git clone --recursive https://github.com/bitcraze/crazyflie-firmware"
        )
    if not (package.path / "crazyflie_app").is_dir():
        raise HilError(
            f"{package.path} has no Crazyflie app: hyperppo-hil flash takes packages of "
            "hyperppo-compile --backend c"
        )
    for tool, hint in (("make", "make"), ("arm-none-eabi-gcc", "gcc-arm-none-eabi")):
        if shutil.which(tool) is None:
            raise HilError(f"no {tool} on this machine: sudo apt-get install {hint}")
    try:
        shutil.copytree(package.path / "crazyflie_app", out, dirs_exist_ok=True)
    except OSError as error:
        raise HilError(f"cannot write {out}: {error.strerror}") from None
    make = ["make", f"CRAZYFLIE_BASE={base.resolve()}"]
    if not (out / "build" / ".config").is_file():
        _run([*make, "cf2_defconfig"], out, lambda _: None)
    compiled = 0

    def count(line: str) -> None:
        nonlocal compiled
        compiled += line.strip().startswith(("CC ", "AS "))
        tell("firmware", min(compiled, FILES_IN_A_BUILD - 1), FILES_IN_A_BUILD)

    _run([*make, "-j2"], out, count)
    tell("firmware", FILES_IN_A_BUILD, FILES_IN_A_BUILD)
    return check(package, out / "build")


def check(package: DevicePackage, folder: Path) -> Firmware:
    """The firmware in a build folder, if it is one with this package's app. Raises HilError."""
    from targets.target import load_target

    binary, elf = folder / "cf2.bin", folder / "cf2.elf"
    flash = load_target(package.target_name).memories["flash"]
    try:
        image = binary.read_bytes()
    except OSError as error:
        raise HilError(f"the build left no {binary}: {error.strerror}") from None
    if len(image) < 8 or len(image) > flash.size_bytes:
        raise HilError(f"{binary} has {len(image)} bytes, of at most {flash.size_bytes}")
    stack, reset = struct.unpack_from("<II", image)
    starts = any(origin <= stack <= origin + 0x2_0000 for origin in RAM_ORIGINS)
    if not starts or not flash.holds(reset):
        raise HilError(f"{binary} does not begin as an image of a Crazyflie does: not flashed")
    if package.package_hash not in image:
        raise HilError(f"{binary} does not hold package {package.package_hash.hex()}: not flashed")
    return Firmware(binary, elf, len(image), flash.origin, flash.size_bytes)


def plan(package: DevicePackage, firmware: Firmware, uri: str) -> list[str]:
    """What flashing will do, for a person to agree to."""
    name = package.manifest["architecture"]["name"]
    share = 100 * firmware.size / firmware.room
    return [
        f"replaces the STM32 firmware of the Crazyflie at {uri} by {firmware.binary}:",
        f"  {firmware.size} bytes at {firmware.origin:#010x}, {share:.0f} % of its flash, with "
        f"policy {name} (package {package.package_hash.hex()})",
        "  bootloader, radio chip and stored settings stay as they are",
        "  motors follow the policy only while hppo.enable is 1, which it is not after a start",
        "  back to the stock firmware: flash a release with cfclient",
    ]


def flash(uri: str, firmware: Firmware, tell: Progress) -> None:
    """Writes the firmware through cflib's bootloader, and starts it. Raises HilError."""
    if not uri.startswith("radio://"):
        raise HilError(f"cannot flash {uri}: the bootloader listens to radio:// alone")
    import cflib.crtp
    from cflib.bootloader import Bootloader, Target

    cflib.crtp.init_drivers()
    loader = Bootloader(uri)
    problem = ""

    def progress(text: str, percent: int) -> None:
        nonlocal problem
        if text.startswith("Error"):
            problem = text
        tell("flash", min(int(percent), 100), 100)

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
            loader.flash_full(
                None,
                str(firmware.binary),
                warm=True,
                targets=(Target("cf2", "stm32", "fw", [], []),),
                progress_cb=progress,
            )
    except Exception as error:  # cflib raises Exception itself
        reason = problem or str(error) or type(error).__name__
        raise HilError(
            f"flashing {uri} failed: {reason}; hold the power button for 3 s to start its "
            "bootloader, then flash again"
        ) from None
    finally:
        with contextlib.suppress(Exception):
            loader.close()


def _run(command: list[str], folder: Path, hear: Callable[[str], None]) -> None:
    """Runs a build step. Raises HilError with the compiler's first complaint."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip())
            hear(line)
    except BaseException:
        process.terminate()
        raise
    finally:
        process.stdout.close()
        process.wait()
    if process.returncode:
        wrong = [line for line in lines if "error:" in line.lower() or "***" in line]
        raise HilError(f"{' '.join(command)} failed in {folder}: {(wrong or lines or ['?'])[0]}")
