from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from compile.errors import CompileError
from compile.package import (
    FIRMWARE_BLOCKS,
    FORMAT,
    FORMAT_VERSION,
    POLICY_FILES,
    add_firmware_app,
    flies,
    load_package,
    package_hash,
    staging,
    write_manifest,
)
from targets.target import load_target

FACTS = {"format": FORMAT, "format_version": FORMAT_VERSION, "precision": "f32"}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "bare_metal").mkdir(parents=True)
    for name in (*POLICY_FILES, "bare_metal/policy.elf"):
        (folder / name).write_text(f"content of {name}")
    write_manifest(folder, FACTS)
    return folder


def test_round_trip(package: Path) -> None:
    loaded = load_package(package)
    assert loaded.path == package
    assert loaded.manifest["precision"] == "f32"
    assert set(loaded.manifest["hashes"]["files"]) == {*POLICY_FILES, "bare_metal/policy.elf"}
    assert loaded.manifest["hashes"]["package"] == package_hash(package, {})
    assert len(package_hash(package, {})) == 16


def test_files_added_later_do_no_harm(package: Path) -> None:
    (package / "latency.json").write_text("{}")
    assert load_package(package).path == package


@pytest.mark.parametrize("name", [*POLICY_FILES, "bare_metal/policy.elf"])
def test_a_changed_or_missing_file_is_named(package: Path, name: str) -> None:
    (package / name).write_text("changed")
    with pytest.raises(CompileError, match=f"{name} was changed"):
        load_package(package)
    (package / name).unlink()
    with pytest.raises(CompileError, match=f"{name} is missing"):
        load_package(package)


def edit(package: Path, change: dict[str, Any]) -> None:
    path = package / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not the manifest of a package"),
        ({"format_version": 99}, "package format 99"),
        ({"hashes": None}, "no hashes"),
        ({"hashes": {"package": "0", "files": {}}}, "package hash does not match"),
    ],
)
def test_wrong_manifests(package: Path, change: dict[str, Any], message: str) -> None:
    edit(package, change)
    with pytest.raises(CompileError, match=message):
        load_package(package)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
def test_broken_manifests(package: Path, text: str) -> None:
    (package / "manifest.json").write_text(text)
    with pytest.raises(CompileError, match=r"manifest\.json"):
        load_package(package)


def test_no_package(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="is no package"):
        load_package(tmp_path / "none")


CONVENTIONS = {
    "observation": ["rotation", "previous_action"],
    "previous_actions": 2,
    "position_clip_m": 2,
    "control_hz": 50,
}


def test_the_app_carries_hash_conventions_and_target(package: Path) -> None:
    target = load_target("crazyflie21")
    add_firmware_app(package, CONVENTIONS, target)
    text = (package / "crazyflie_app/src/package_hash.h").read_text()
    digits = bytes.fromhex(package_hash(package, CONVENTIONS))
    assert f"HPPO_PACKAGE_HASH {{{', '.join(f'0x{b:02x}' for b in digits)}}}" in text
    assert "HPPO_OBSERVATION_BLOCKS rotation, previous_action" in text
    assert "HPPO_PREVIOUS_ACTIONS 2" in text
    assert "HPPO_POSITION_CLIP_M 2.0f" in text
    assert "HPPO_CONTROL_HZ 50" in text
    assert f"HPPO_CLOCK_HZ {target.clock_hz}u" in text
    assert f"HPPO_DEADLINE_US {target.deadline_us:.0f}" in text
    build = (package / "crazyflie_app/src/Kbuild").read_text()
    assert f"CFLAGS_policy.o += {' '.join(target.optimise)}\n" in build
    for name in POLICY_FILES:
        copied = package / "crazyflie_app" / "src" / name
        assert copied.read_bytes() == (package / name).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"observation": ["previous_action", "rotation"]},
        {"previous_actions": 3},
        {"position_clip_m": 1.0},
        {"velocity_limit_m_s": 1.5},
        {"control_hz": 100},
    ],
)
def test_packages_that_differ_in_a_convention_alone_do_not_look_alike(
    package: Path, change: dict[str, Any]
) -> None:
    assert package_hash(package, CONVENTIONS) != package_hash(package, {**CONVENTIONS, **change})
    write_manifest(package, {**FACTS, "conventions": CONVENTIONS})
    load_package(package)
    edit(package, {"conventions": {**CONVENTIONS, **change}})
    with pytest.raises(CompileError, match="package hash"):
        load_package(package)


def test_staging_replaces_in_one_step(package: Path) -> None:
    before = sorted(package.parent.iterdir())
    with staging(package) as folder:
        (folder / "manifest.json").write_text("new")
        assert load_package(package)
    assert (package / "manifest.json").read_text() == "new"
    assert not (package / "policy.c").exists()
    assert sorted(package.parent.iterdir()) == before


def fail_within(out: Path) -> None:
    with staging(out) as folder:
        (folder / "half").write_text("written")
        raise CompileError("stop")


def test_a_failure_leaves_everything_as_it_was(package: Path, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="stop"):
        fail_within(package)
    load_package(package)
    with pytest.raises(CompileError, match="stop"):
        fail_within(tmp_path / "fresh")
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_what_is_no_package_is_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.tex").write_text("years of work")
    with pytest.raises(CompileError, match="exists and is no package"), staging(folder):
        pass
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(CompileError, match="exists and is no package"), staging(file):
        pass
    with pytest.raises(CompileError, match="cannot write"), staging(file / "below"):
        pass
    assert (folder / "chapter1.tex").exists()


def test_the_blocks_that_fly_are_those_of_the_firmware_app() -> None:
    source = Path(__file__).parents[2] / "hil" / "crazyflie_app" / "src" / "hppo_observation.c"
    block = re.search(r"enum block \{(.*?)\}", source.read_text(), re.S)
    assert block is not None
    names = {name.strip() for name in block[1].split(",")}
    assert names == FIRMWARE_BLOCKS
    assert flies({"observation": sorted(names)})
    assert not flies({"observation": ["rotation", "cos_angle"]})
    assert not flies({"observation": []})
    assert not flies({})
