"""--tflm-root: the tree, the build command, the errors. TFLM itself is not built here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from compile.errors import CompileError
from compile.lower.tflm.build import build_library, check_tree, link, make_command
from targets.target import Target

HEADER = "tensorflow/lite/micro/micro_interpreter.h"
MAKEFILE = "tensorflow/lite/micro/tools/make/Makefile"
STANDIN = Path(__file__).parent / "tflm_standin"
LIBRARY = "gen/$(TARGET)_$(TARGET_ARCH)_release_cmsis_nn_gcc/lib/libtensorflow-microlite.a"


def tree(folder: Path, makefile: str) -> Path:
    """A folder that looks like TFLM's, with another makefile."""
    for name, text in ((MAKEFILE, makefile), (HEADER, "")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("missing", [MAKEFILE, HEADER, "everything"])
def test_what_is_no_tree(missing: str, tmp_path: Path) -> None:
    if missing != "everything":
        (tree(tmp_path, "") / missing).unlink()
    with pytest.raises(CompileError, match="is no TFLM tree: it has no tensorflow/lite/micro"):
        check_tree(tmp_path)
    check_tree(tree(tmp_path, ""))


def test_the_command_is_the_one_of_tflm(target: Target) -> None:
    command = make_command(target, Path("/opt/arm/bin/arm-none-eabi-gcc"))
    assert command[:3] == ["make", "-f", MAKEFILE]
    assert command[-1] == "microlite"
    assert {
        "TARGET=cortex_m_generic",
        "TARGET_ARCH=cortex-m4+fp",
        "OPTIMIZED_KERNEL_DIR=cmsis_nn",
        "TARGET_TOOLCHAIN_ROOT=/opt/arm/bin/",
    } <= set(command)


@pytest.mark.parametrize(
    ("makefile", "message"),
    [
        ("microlite:\n\t@echo 'x.cc:1:2: error: no such thing' >&2; false\n", "error: no such"),
        ("all:\n\t@true\n", "No rule to make target"),
        ("microlite:\n\t@true\n", "was built, but there is no gen/cortex_m_generic_cortex-m4"),
    ],
)
def test_a_tree_that_does_not_build(
    makefile: str, message: str, target: Target, tmp_path: Path
) -> None:
    with pytest.raises(CompileError, match=message) as caught:
        build_library(tree(tmp_path, makefile), target, Path("/usr/bin/arm-none-eabi-gcc"))
    assert "\n" not in str(caught.value)


def test_the_newest_library_is_taken(target: Target, tmp_path: Path) -> None:
    makefile = f"microlite:\n\t@mkdir -p $(dir {LIBRARY}) && touch {LIBRARY}\n"
    found = build_library(tree(tmp_path, makefile), target, Path("/usr/bin/arm-none-eabi-gcc"))
    assert found.name == "libtensorflow-microlite.a"
    assert found.is_file()


@pytest.mark.usefixtures("cross")
def test_link(target: Target, tmp_path: Path) -> None:
    """Compile for the target and link, with a stand-in for TFLM: an empty library and its API."""
    root = tree(tmp_path / "tflm", "")
    for header in STANDIN.rglob("*.h"):
        copy = root / header.relative_to(STANDIN)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(header.read_text())
    archive = f"@mkdir -p $(dir {LIBRARY}) && arm-none-eabi-ar rc {LIBRARY}"
    (root / MAKEFILE).write_text(f"microlite:\n\t{archive}\n")
    package = tmp_path / "package"
    package.mkdir()
    (package / "policy.tflite").write_bytes(bytes(400))
    (package / "policy.h").write_text(
        "#define POLICY_OBS_DIM 2\n#define POLICY_ACT_DIM 1\n"
        '#ifdef __cplusplus\nextern "C"\n#endif\n'
        "void policy_step(const float *o, float *a);\n"
    )
    (package / "policy_tflm.cc").write_text(
        '#include "policy.h"\n'
        '#include "tensorflow/lite/micro/micro_interpreter.h"\n'
        "extern const char model[400];\nconst char model[400] = {1};\n"
        "volatile char arena[1024];\n"
        'extern "C" void policy_step(const float *o, float *a) {\n'
        "  a[0] = o[0] + float(model[int(arena[1])]);\n}\n"
    )
    try:
        linked = link(root, target, package)
    except CompileError as error:
        if "cstddef" in str(error):
            pytest.skip("libstdc++-arm-none-eabi is not installed")
        raise
    assert linked.elf == package / "bare_metal" / "policy.elf"
    assert 1024 <= linked.ram < 1100
    assert 400 < linked.flash < 600
    assert linked.code == linked.flash - 400
    symbols = subprocess.run(
        ["arm-none-eabi-nm", str(linked.elf)], capture_output=True, text=True, check=True
    ).stdout
    assert "policy_step" in symbols
    wrong = {
        "nonsense\n": r"policy_tflm\.cc does not compile: .*nonsense",
        'extern "C" void absent();\n'
        'extern "C" void policy_step(const float *, float *) { absent(); }\n': (
            "the policy does not link with TFLM: .*undefined reference to `absent'"
        ),
    }
    for text, message in wrong.items():
        (package / "policy_tflm.cc").write_text(text)
        shutil.rmtree(package / "bare_metal")
        with pytest.raises(CompileError, match=message) as caught:
            link(root, target, package)
        assert "\n" not in str(caught.value)
