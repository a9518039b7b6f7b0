"""The package on disk: its files, their hashes, and how it is put in place in one step."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compile.errors import CompileError

if TYPE_CHECKING:
    from targets.target import Target

FORMAT = "hyperppo-package"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
FIRMWARE_BLOCKS = frozenset(
    (
        "position_error_body",
        "velocity_error_body",
        "rotation",
        "angular_velocity",
        "position_error_integral_body",
        "previous_action",
        "action_average",
    )
)  # of observations that the firmware apps build: enum block of hppo_observation.c
POLICY_FILES = ("policy.h", "policy.c", "policy_golden.h")  # the device code, in hashing order
TFLM_FILES = ("policy.h", "policy_tflm.h", "policy_tflm.cc", "policy_golden.h")  # the same of tflm


@dataclass(frozen=True)
class Package:
    """A package whose files are those that were written."""

    path: Path
    manifest: Mapping[str, Any]


def load_package(path: Path) -> Package:
    """Read a package. CompileError when it is missing, not a package, or a file was changed."""
    path = Path(path)
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CompileError(
            f"{path} is no package (no {MANIFEST}); make one with hyperppo-compile"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CompileError(f"{path / MANIFEST} cannot be read: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CompileError(f"{path / MANIFEST} is not the manifest of a package")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise CompileError(
            f"{path} has package format {manifest.get('format_version')}, this version reads "
            f"{FORMAT_VERSION}; run hyperppo-compile again"
        )
    try:
        hashes = dict(manifest["hashes"]["files"])
        stamp = manifest["hashes"]["package"]
    except (KeyError, TypeError, ValueError):
        raise CompileError(f"{path / MANIFEST} has no hashes of its files") from None
    for name, expected in hashes.items():
        file = path / name
        if not file.is_file():
            raise CompileError(f"{path}: {name} is missing; run hyperppo-compile again")
        if _sha256(file) != expected:
            raise CompileError(
                f"{path}: {name} was changed after it was verified (its hash does not match the "
                "manifest); run hyperppo-compile again"
            )
    files = policy_files(manifest)
    if (
        not set(files) <= set(hashes)
        or package_hash(path, manifest.get("conventions", {}), files) != stamp
    ):
        raise CompileError(f"{path}: the package hash does not match its policy files")
    return Package(path, manifest)


def policy_files(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The device code of a package, by its backend."""
    return TFLM_FILES if manifest.get("backend") == "tflm" else POLICY_FILES


def package_hash(
    folder: Path, conventions: Mapping[str, Any], files: tuple[str, ...] = POLICY_FILES
) -> str:
    """16 hex digits that a device reports: which policy it runs, and by which conventions."""
    digest = hashlib.sha256()
    for name in files:
        digest.update((folder / name).read_bytes())
    digest.update("\n".join(convention_lines(conventions)).encode())
    return digest.digest()[:8].hex()


def flies(conventions: Mapping[str, Any]) -> bool:
    """Whether the firmware apps can build the observation: every block is one of theirs."""
    blocks = conventions.get("observation", [])
    return bool(blocks) and FIRMWARE_BLOCKS.issuperset(blocks)


def convention_lines(conventions: Mapping[str, Any]) -> list[str]:
    """What the Crazyflie app builds the observation by and how often, as C definitions.

    None for a policy that does not fly.
    """
    if not flies(conventions):
        return []
    lines = [f"#define HPPO_OBSERVATION_BLOCKS {', '.join(conventions['observation'])}"]
    if conventions.get("previous_actions"):
        lines.append(f"#define HPPO_PREVIOUS_ACTIONS {int(conventions['previous_actions'])}")
    hz = float(conventions.get("control_hz", 0))
    if constants := conventions.get("action_average_s"):
        gains = ", ".join(_literal(-math.expm1(-1 / (hz * constant))) for constant in constants)
        lines.append(f"#define HPPO_ACTION_AVERAGES {len(constants)}")
        lines.append(f"#define HPPO_ACTION_AVERAGE_GAINS {gains}")
    if limit := conventions.get("integral_clip_m_s"):
        kept = 1 - float(conventions["integral_leak_per_s"]) / hz
        lines.append(f"#define HPPO_INTEGRAL_CLIP_M_S {_literal(limit)}")
        lines.append(f"#define HPPO_INTEGRAL_KEPT {_literal(kept)}")
    if "position_clip_m" in conventions:
        lines.append(f"#define HPPO_POSITION_CLIP_M {_literal(conventions['position_clip_m'])}")
    if limit := conventions.get("velocity_limit_m_s"):
        lines.append(f"#define HPPO_VELOCITY_LIMIT_M_S {_literal(limit)}")
    if "control_hz" in conventions:
        lines.append(f"#define HPPO_CONTROL_HZ {int(conventions['control_hz'])}")
    return lines


def _literal(value: float) -> str:
    return f"{float(f'{value:.9g}')!r}f"


def add_firmware_app(folder: Path, conventions: Mapping[str, Any], target: Target) -> None:
    """Copy the app for the target's stock firmware, with the policy and what it goes by in it.

    ``conventions``: the run's; the app builds the observation from its block list. ``target``
    gives the firmware, the deadline, the clock and the flags that the policy is compiled with.
    CompileError when there is no app for that firmware.
    """
    name = f"{target.firmware}_app"
    app = folder / name
    with resources.as_file(resources.files("hil") / name) as source:
        if not source.is_dir():
            raise CompileError(f"{target.name}: there is no app for firmware {target.firmware!r}")
        shutil.copytree(source, app, ignore=shutil.ignore_patterns("*.o", "build", "__pycache__"))
    sources = app / "src"
    for name in POLICY_FILES:
        shutil.copyfile(folder / name, sources / name)
    stamp = package_hash(folder, conventions)
    lines = [
        "/* Which policy this is, its conventions and its target. The harness asks the device for",
        " * the hash: the first bytes of the SHA-256 over policy.h, policy.c, policy_golden.h and",
        " * the lines of the conventions. */",
        "#ifndef PACKAGE_HASH_H",
        "#define PACKAGE_HASH_H",
        "",
        f"#define HPPO_PACKAGE_HASH {{{', '.join(f'0x{b:02x}' for b in bytes.fromhex(stamp))}}}",
        "",
        *convention_lines(conventions),
        "",
        f"#define HPPO_CLOCK_HZ {target.clock_hz}u",
        f"#define HPPO_DEADLINE_US {target.deadline_us:.0f}",
        "",
        "#endif",
        "",
    ]
    (sources / "package_hash.h").write_text("\n".join(lines), encoding="utf-8")
    build = sources / "Kbuild"
    flags = build.read_text(encoding="utf-8").replace("@POLICY_FLAGS@", " ".join(target.optimise))
    build.write_text(flags, encoding="utf-8")


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest with the hashes of all other files; returns it complete."""
    files = {
        file.relative_to(folder).as_posix(): _sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }
    stamp = package_hash(folder, manifest.get("conventions", {}), policy_files(manifest))
    complete = {**manifest, "hashes": {"package": stamp, "files": files}}
    text = json.dumps(complete, indent=2, allow_nan=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return complete


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place when the block ends without an error.

    Raises CompileError when ``out`` cannot be written, or holds something that is no package.
    """
    out = out.resolve()
    foreign = out.exists() and not (out / MANIFEST).is_file()
    if foreign and (not out.is_dir() or any(out.iterdir())):
        raise CompileError(f"{out} exists and is no package; choose another --out or remove it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise CompileError(f"cannot write the package {out}: {error.strerror}") from None
    folder, old = temporary / "new", temporary / "old"
    folder.mkdir()
    try:
        yield folder
        try:
            if out.exists():
                out.rename(old)
            folder.rename(out)
        except OSError as error:
            if old.exists():
                old.rename(out)
            raise CompileError(f"cannot write the package {out}: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
