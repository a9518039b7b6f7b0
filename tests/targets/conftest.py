import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from targets.target import Target, load_target
from targets.toolchain import Image, cross_prefix, link_image

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="session")
def target() -> Target:
    return load_target("crazyflie21")


@pytest.fixture(scope="session")
def cross(target: Target) -> str:
    """The cross-compiler's prefix; tests that need it are skipped without it."""
    prefix = cross_prefix(target)
    if shutil.which(prefix + "gcc") is None:
        pytest.skip(f"{prefix}gcc is not installed")
    return prefix


@pytest.fixture(scope="session")
def link(
    target: Target, cross: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Image]:
    """Links programs/NAME.c, standing where the policy stands, into an image; once a session."""
    folder = tmp_path_factory.mktemp("images")
    made: dict[str, Image] = {}

    def build(name: str) -> Image:
        if name not in made:
            made[name] = link_image(
                target,
                [PROGRAMS / "main.c"],
                folder / f"{name}.elf",
                policy_source=PROGRAMS / f"{name}.c",
                entry="run",
            )
        return made[name]

    return build
