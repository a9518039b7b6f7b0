import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from targets.errors import TargetError
from targets.image import read_image
from targets.stack import deepest_stack
from targets.target import Target
from targets.toolchain import (
    Image,
    PolicySizes,
    ToolchainMissing,
    compile_host_library,
    find_cross,
    link_image,
    policy_sizes,
)

PROGRAMS = Path(__file__).parent / "programs"
POLICY = """
static const float weights[40] = { 1.0f, 2.0f };
static float even[24], odd[4];
static float scale = 2.0f;
void policy_step(const float *observation, float *action);
void policy_step(const float *observation, float *action)
{
    for (int i = 0; i < 24; ++i) {
        even[i] = observation[i % 4] * weights[i] * scale;
    }
    for (int i = 0; i < 4; ++i) {
        odd[i] = even[i] + weights[39 - i];
        action[i] = odd[i];
    }
    scale += 1.0f;
}
"""
MAIN = """
void policy_step(const float *observation, float *action);
static const float other[100] = { 3.0f };
static float more[50] = { 1.0f };
int main(void) { policy_step(other, more); return 0; }
"""


def build(target: Target, folder: Path, policy: str = POLICY, weights_in: str = "flash") -> Image:
    (folder / "policy.c").write_text(policy)
    (folder / "main.c").write_text(MAIN)
    return link_image(
        target,
        [folder / "main.c"],
        folder / "out.elf",
        policy_source=folder / "policy.c",
        weights_in=weights_in,
    )


@pytest.mark.parametrize("weights_in", ["flash", "ram"])
def test_sizes_are_those_of_the_binary_tools(
    target: Target, cross: str, tmp_path: Path, weights_in: str
) -> None:
    image = build(target, tmp_path, weights_in=weights_in)
    sizes = policy_sizes(image.elf, image.stack_bytes)
    listing = subprocess.run(
        [f"{cross}size", "-A", image.elf], capture_output=True, text=True, check=True
    ).stdout
    section = {name: int(n) for name, n in re.findall(r"^(\.\S+)\s+(\d+)", listing, re.MULTILINE)}
    assert sizes.text == section[".policy_text"]
    assert sizes.rodata == section.get(".policy_rodata", 0)
    assert sizes.data == section[".policy_data"]
    assert sizes.bss == section[".policy_bss"]
    in_flash = weights_in == "flash"
    assert (sizes.rodata, sizes.data) == ((160, 4) if in_flash else (0, 164))
    assert sizes.bss >= 4 * 24
    names = subprocess.run(
        [f"{cross}nm", "-S", image.elf], capture_output=True, text=True, check=True
    ).stdout
    of_symbols = {
        n: int(size, 16) for size, n in re.findall(r"^\w+ (\w+) \w (\w+)$", names, re.MULTILINE)
    }
    assert of_symbols["policy_step"] <= sizes.text < of_symbols["policy_step"] + 4
    address = int(re.search(r"^(\w+) \w+ \w weights$", names, re.MULTILINE)[1], 16)  # type: ignore[index]
    assert target.memories["flash" if in_flash else "ram"].holds(address)


def test_totals_count_every_byte_once() -> None:
    sizes = PolicySizes(text=1000, rodata=200, data=30, bss=4, stack=50)
    assert sizes.flash == 1230
    assert sizes.ram == 84
    assert sizes.total == 1284


def test_the_same_input_gives_the_same_bytes(target: Target, cross: str, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "another" / "deeper"]
    for folder in folders:
        folder.mkdir(parents=True)
    first, second = (build(target, folder).elf.read_bytes() for folder in folders)
    assert first == second
    assert str(tmp_path).encode() not in first
    for folder in folders:  # nothing temporary stays
        assert {path.name for path in folder.iterdir()} == {"policy.c", "main.c", "out.elf"}


def test_what_was_compiled_is_told(target: Target, cross: str, tmp_path: Path) -> None:
    image = build(target, tmp_path)
    assert image.compiler_version.startswith("arm-none-eabi-gcc")
    assert {"-mcpu=cortex-m4", "-O2", "-Wconversion"} <= set(image.flags)
    assert image.stack_bytes < 64


def test_a_warning_is_an_error_and_leaves_nothing(
    target: Target, cross: str, tmp_path: Path
) -> None:
    bad = POLICY.replace("scale += 1.0f;", "int unused; scale += 1.0f;")
    with pytest.raises(TargetError, match="unused") as caught:
        build(target, tmp_path, bad)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"policy.c", "main.c"}


def test_recursion_and_unknown_frames_are_refused(
    target: Target, cross: str, tmp_path: Path
) -> None:
    recursive = POLICY.replace(
        "scale += 1.0f;",
        "scale += 1.0f; if (observation[0] > 0.0f) { policy_step(action, even); even[0] = 0.0f; }",
    )
    with pytest.raises(TargetError, match="policy_step calls itself"):
        build(target, tmp_path, recursive)
    dynamic = POLICY.replace(
        "scale += 1.0f;",
        "float frame[(int)scale]; frame[0] = 1.0f; scale += *(volatile float *)frame;",
    )
    with pytest.raises(TargetError, match="unknown size"):
        build(target, tmp_path, dynamic)


def test_deepest_path_of_a_call_graph() -> None:
    def node(name: str, frame: int) -> str:
        return f'node: {{ title: "{name}" label: "{name}\\nx.c:1:1\\n{frame} bytes (static)" }}\n'

    def edge(caller: str, callee: str) -> str:
        return f'edge: {{ sourcename: "{caller}" targetname: "{callee}" label: "x.c:2:2" }}\n'

    graph = "".join(node(n, f) for n, f in [("a", 8), ("b", 100), ("c", 40), ("d", 64)])
    graph += edge("a", "b") + edge("a", "c") + edge("c", "d")
    assert deepest_stack(graph, "a") == 8 + 40 + 64
    assert deepest_stack(graph, "b") == 100
    with pytest.raises(TargetError, match="no function z"):
        deepest_stack(graph, "z")
    with pytest.raises(TargetError, match="calls itself"):
        deepest_stack(graph + edge("d", "a"), "a")


def test_missing_compiler_says_what_to_install(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERPPO_CROSS", "no-such-compiler-")
    with pytest.raises(ToolchainMissing, match="apt-get install gcc-arm-none-eabi"):
        find_cross(target)


def test_a_prefix_from_the_environment_wins(
    target: Target, cross: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = find_cross(target).removesuffix("gcc")
    monkeypatch.setenv("HYPERPPO_CROSS", prefix)
    assert find_cross(target) == prefix + "gcc"


def test_an_image_of_others_is_refused(link: Callable[[str], Image], tmp_path: Path) -> None:
    library = compile_host_library([PROGRAMS / "mixed.c"], tmp_path / "mixed.so")
    with pytest.raises(TargetError, match=r"no \.policy_text"):
        policy_sizes(library, 0)


def test_the_elf_header_is_not_loaded(link: Callable[[str], Image], tmp_path: Path) -> None:
    """A linker may put it into the page before the code, outside of the flash that there is."""
    image = bytearray(link("mixed").elf.read_bytes())
    whole = read_image(link("mixed").elf).segments
    at = struct.unpack_from("<I", image, 28)[0]  # e_phoff; then p_type, p_offset, p_vaddr, ...
    kind, offset, virtual, physical, size = struct.unpack_from("<IIIII", image, at)
    assert (kind, (physical, size)) == (1, (whole[0][0], len(whole[0][1])))
    fields = (0, virtual - offset, physical - offset, size + offset)
    struct.pack_into("<IIII", image, at + 4, *fields)
    (tmp_path / "paged.elf").write_bytes(image)
    assert read_image(tmp_path / "paged.elf").segments == whole


def test_bad_placement(target: Target, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="flash or ram"):
        build(target, tmp_path, weights_in="eeprom")
