"""Flashing, up to the radio: a firmware tree that only pretends to build, and a bootloader."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hil import flash
from hil.errors import HilError
from hil.package import open_package

URI = "radio://0/80/2M/E7E7E7E7E7"

# "Compiles" by writing a vector table and the app's sources into the image.
OOT_MK = """\
all:
\t@mkdir -p build; echo "  CC one.o"; echo "  CC two.o"
\t@test ! -f $(CRAZYFLIE_BASE)/broken || (echo "main.c:1:2: error: no such thing"; exit 1)
\t@cp $(CRAZYFLIE_BASE)/image build/cf2.bin; cp $(CRAZYFLIE_BASE)/image build/cf2.elf
cf2_defconfig:
\t@mkdir -p build; echo made > build/.config
.PHONY: all cf2_defconfig
"""


@pytest.fixture
def tree(tmp_path: Path, package: Path) -> Path:
    base = tmp_path / "firmware"
    (base / "tools" / "make").mkdir(parents=True)
    (base / "tools" / "make" / "oot.mk").write_text(OOT_MK)
    head = struct.pack("<II", 0x2001FFFF, 0x080041C1)
    (base / "image").write_bytes(head + bytes(5000) + open_package(package).package_hash)
    return base


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hil.cli", "flash", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_without_yes_it_says_what_it_would_replace(
    package: Path, tree: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = command(str(package), "--firmware", str(tree), "--uri", URI, "--out", str(out))
    assert done.returncode == 2
    assert f"replaces the STM32 firmware of the Crazyflie at {URI}" in done.stdout
    assert open_package(package).package_hash.hex() in done.stdout
    assert done.stderr == "error: nothing was flashed: say --yes to replace the firmware\n"
    assert (out / "build" / "cf2.bin").is_file()
    assert (out / "src" / "policy.c").read_bytes() == (package / "policy.c").read_bytes()


def test_a_dry_run_flashes_nothing_even_with_yes(package: Path, tree: Path, tmp_path: Path) -> None:
    arguments = ["--firmware", str(tree), "--out", str(tmp_path / "o"), "--dry-run", "--yes"]
    done = command(str(package), *arguments, "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["flashed"], outcome["bytes"]) == (False, 5016)


class FakeBootloader:
    """Takes what cflib's takes, and fails as told."""

    seen: ClassVar[dict[str, Any]] = {}
    failure: ClassVar[str | None] = None

    def __init__(self, uri: str) -> None:
        self.seen.clear()
        self.seen["uri"] = uri

    def flash_full(self, cf: object, filename: str, **options: Any) -> None:
        print("chatter")
        self.seen.update(options, content=Path(filename).read_bytes())
        options["progress_cb"]("Firmware (1/1) Starting...", 0)
        if self.failure is not None:
            raise Exception(self.failure)
        options["progress_cb"]("Flashing done!", 100)

    def close(self) -> None:
        self.seen["closed"] = True


@pytest.fixture
def bootloader(monkeypatch: pytest.MonkeyPatch) -> type[FakeBootloader]:
    monkeypatch.setattr("cflib.bootloader.Bootloader", FakeBootloader)
    monkeypatch.setattr("cflib.crtp.init_drivers", lambda: None)
    monkeypatch.setattr(FakeBootloader, "failure", None)
    return FakeBootloader


def test_it_hands_the_image_to_the_stm32_alone(
    package: Path,
    tree: Path,
    tmp_path: Path,
    bootloader: type[FakeBootloader],
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened = open_package(package)
    built = flash.build(opened, tree, tmp_path / "out", lambda *_: None)
    steps: list[tuple[str, int, int]] = []
    flash.flash(URI, built, lambda *step: steps.append(step))
    assert bootloader.seen["uri"] == URI
    assert bootloader.seen["content"] == built.binary.read_bytes()
    assert [tuple(t)[:3] for t in bootloader.seen["targets"]] == [("cf2", "stm32", "fw")]
    assert bootloader.seen["warm"]
    assert bootloader.seen["closed"]
    assert steps == [("flash", 0, 100), ("flash", 100, 100)]
    assert capsys.readouterr().out == ""


def test_a_radio_that_fails_is_reported(
    package: Path, tree: Path, tmp_path: Path, bootloader: type[FakeBootloader]
) -> None:
    built = flash.build(open_package(package), tree, tmp_path / "out", lambda *_: None)
    bootloader.failure = "Could not connect to bootloader"
    with pytest.raises(HilError, match="Could not connect to bootloader; hold the power button"):
        flash.flash(URI, built, lambda *_: None)
    with pytest.raises(HilError, match="radio:// alone"):
        flash.flash("usb://0", built, lambda *_: None)


def test_cflib_offers_what_is_used_of_it() -> None:
    import inspect

    from cflib.bootloader import Bootloader, Target

    assert {"filename", "warm", "targets", "progress_cb"} <= set(
        inspect.signature(Bootloader.flash_full).parameters
    )
    assert Target._fields[:3] == ("platform", "target", "type")


def test_images_that_must_not_be_flashed(package: Path, tree: Path, tmp_path: Path) -> None:
    opened = open_package(package)
    whole = (tree / "image").read_bytes()
    for image, problem in (
        (whole[:-8], "does not hold package"),
        (b"\x00" * 8 + whole[8:], "does not begin as an image"),
        (b"", "has 0 bytes"),
        (whole + bytes(1_100_000), "of at most"),
    ):
        (tree / "image").write_bytes(image)
        with pytest.raises(HilError, match=problem):
            flash.build(opened, tree, tmp_path / "out", lambda *_: None)


def test_a_package_without_an_app(package: Path, tree: Path, tmp_path: Path) -> None:
    bare = dataclasses.replace(open_package(package), path=tmp_path)
    with pytest.raises(HilError, match=r"has no Crazyflie app.*--backend c"):
        flash.build(bare, tree, tmp_path / "out", lambda *_: None)


def test_trees_that_do_not_build(package: Path, tree: Path, tmp_path: Path) -> None:
    opened = open_package(package)
    with pytest.raises(HilError, match=r"no Crazyflie firmware.*git clone"):
        flash.build(opened, tmp_path, tmp_path / "out", lambda *_: None)
    (tree / "broken").touch()
    with pytest.raises(HilError, match="error: no such thing"):
        flash.build(opened, tree, tmp_path / "out", lambda *_: None)


@pytest.mark.skipif("CRAZYFLIE_BASE" not in os.environ, reason="CRAZYFLIE_BASE is not set")
def test_the_real_firmware_up_to_the_radio(package: Path, tmp_path: Path) -> None:
    base = Path(os.environ["CRAZYFLIE_BASE"])
    built = flash.build(open_package(package), base, tmp_path / "out", lambda *_: None)
    assert 100_000 < built.size < built.room
