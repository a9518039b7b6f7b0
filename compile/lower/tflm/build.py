"""TFLM's library from a user's checkout, and an image of the policy linked with it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compile.errors import CompileError

if TYPE_CHECKING:
    from compile.device import Cycles, CyclesByData
    from targets.target import Target

MAKEFILE = Path("tensorflow/lite/micro/tools/make/Makefile")
DOWNLOADS = MAKEFILE.parent / "downloads"  # where that Makefile puts what TFLM depends on
INCLUDE = (Path(), *(DOWNLOADS / name for name in ("flatbuffers/include", "gemmlowp", "ruy")))
LIBRARY = "libtensorflow-microlite.a"
ARCHITECTURE = {"cortex_m4f": "cortex-m4+fp"}  # TFLM's TARGET_ARCH of a core
CXX_FLAGS = (
    "-std=c++17",
    "-Os",
    "-fno-rtti",
    "-fno-exceptions",
    "-fno-threadsafe-statics",
    "-ffunction-sections",
    "-fdata-sections",
    "-DTF_LITE_STATIC_MEMORY",
    "-DTF_LITE_STRIP_ERROR_STRINGS",  # a release build of TFLM has no MicroPrintf
    "-DNDEBUG",
    "-DCMSIS_NN",
)


@dataclass(frozen=True)
class Linked:
    """An image with the policy and TFLM, and what they add to one that has neither."""

    elf: Path
    compiler_version: str
    flags: tuple[str, ...]  # of policy_tflm.cc
    flash: int  # bytes, the load image of initialised data included
    ram: int  # bytes of static data
    code: int  # bytes in flash beside the model
    arena: int = 0  # bytes that TFLM says it uses, on the emulated core
    stack: int = 0  # bytes, the deepest on the emulated core, set-up included
    cycles: Cycles | None = None  # modelled, of one inference
    by_data: CyclesByData | None = None  # likewise


def check_tree(root: Path) -> None:
    """CompileError unless the folder is a checkout of TFLM."""
    for needed in (MAKEFILE, Path("tensorflow/lite/micro/micro_interpreter.h")):
        if not (root / needed).is_file():
            raise CompileError(
                f"--tflm-root {root} is no TFLM tree: it has no {needed}; give the top folder of "
                "a checkout of tensorflow/tflite-micro"
            )


def make_command(target: Target, compiler: Path) -> list[str]:
    """What builds the library, in TFLM's top folder (cortex_m_generic/README.md there)."""
    if target.core not in ARCHITECTURE:
        raise CompileError(
            f"--tflm-root: no TFLM library is known for the core {target.core}; known: "
            f"{', '.join(ARCHITECTURE)}"
        )
    return [
        "make",
        "-f",
        str(MAKEFILE),
        f"-j{os.cpu_count() or 1}",
        "TARGET=cortex_m_generic",
        f"TARGET_ARCH={ARCHITECTURE[target.core]}",
        "OPTIMIZED_KERNEL_DIR=cmsis_nn",
        "BUILD_TYPE=release",
        f"TARGET_TOOLCHAIN_ROOT={compiler.parent}/",
        "microlite",
    ]


def build_library(root: Path, target: Target, compiler: Path) -> Path:
    """Build TFLM with CMSIS-NN's kernels for the target; returns the library.

    TFLM's makefile runs python3 scripts that need numpy and Pillow: this Python has both.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    what = f"TFLM in {root} does not build"
    _run(make_command(target, compiler), what, cwd=root, env={**os.environ, "PATH": path})
    pattern = f"gen/cortex_m_generic_{ARCHITECTURE[target.core]}*/lib/{LIBRARY}"
    found = sorted(root.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise CompileError(f"TFLM in {root} was built, but there is no {pattern}")
    return found[-1]


def link(root: Path, target: Target, folder: Path) -> Linked:
    """Build TFLM, and link the package's policy_tflm.cc with it into bare_metal/policy.elf.

    Raises CompileError with the first complaint of whatever fails; TargetError without the
    cross-compiler.
    """
    from targets.toolchain import compiler_version, find_cross

    compiler = Path(find_cross(target))
    root = root.resolve()
    library = build_library(root, target, compiler)
    elf = folder / "bare_metal" / "policy.elf"
    elf.parent.mkdir()
    flags = (*target.isa_flags, *CXX_FLAGS)
    with tempfile.TemporaryDirectory(prefix=".tflm-", dir=elf.parent) as name:
        work = Path(name)
        policy, empty = work / "policy.o", work / "empty.c"
        include = [f"-I{root / path}" for path in INCLUDE]
        source = str(folder / "policy_tflm.cc")
        command = [str(compiler), *flags, f"-I{folder}", *include, "-c", source, "-o", str(policy)]
        _run(command, "policy_tflm.cc does not compile")
        empty.write_text(
            '#include "policy.h"\nvoid policy_step(const float *o, float *a) { a[0] = o[0]; }\n',
            encoding="utf-8",
        )
        without = _image(compiler, target, folder, [str(empty)], work / "empty.elf", work)
        objects = [str(policy), str(library)]
        whole = _image(compiler, target, folder, objects, work / "policy.elf", work)
        (work / "policy.elf").replace(elf)
    flash, ram = (whole[part] - without[part] for part in ("flash", "ram"))
    model = (folder / "policy.tflite").stat().st_size
    version = compiler_version(str(compiler))
    return Linked(elf, version, flags, flash, ram, code=flash - model)


def _image(
    compiler: Path, target: Target, folder: Path, objects: Sequence[str], elf: Path, work: Path
) -> Mapping[str, int]:
    """Link start-up, main and the objects; bytes under flash and ram."""
    from targets.target import targets_folder
    from targets.toolchain import linker_script

    script = work / "link.ld"
    script.write_text(linker_script(target), encoding="utf-8")
    startup = targets_folder() / "cores" / "startup.c"
    main = str(Path(__file__).with_name("main.c"))
    command = [
        str(compiler),
        *target.isa_flags,
        "-Os",
        f"-I{folder}",
        str(startup),
        main,
    ]
    command += [*objects, "-nostartfiles", "-specs=nano.specs", "-specs=nosys.specs", f"-T{script}"]
    kept = (f"-Wl,-u,{name}" for name in ("policy_tflm_init", "policy_tflm_arena_used"))
    command += ["-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,-n", *kept]
    command += ["-lstdc++", "-lm", "-o", str(elf)]
    _run(command, "the policy does not link with TFLM")
    return _sizes(elf)


def _sizes(elf: Path) -> dict[str, int]:
    from elftools.elf.constants import SH_FLAGS
    from elftools.elf.elffile import ELFFile

    sizes = {"flash": 0, "ram": 0}
    with elf.open("rb") as stream:
        for section in ELFFile(stream).iter_sections():
            flags, size = section["sh_flags"], int(section["sh_size"])
            if flags & SH_FLAGS.SHF_ALLOC:
                sizes["flash"] += size if section["sh_type"] != "SHT_NOBITS" else 0
                sizes["ram"] += size if flags & SH_FLAGS.SHF_WRITE else 0
    return sizes


def _run(
    command: Sequence[str],
    what: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=cwd, env=env
        )
    except OSError as error:
        raise CompileError(f"{what}: {command[0]}: {error.strerror}") from None
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        telling = ("error:", "***", "undefined reference", "cannot find", "overflowed")
        known = [line for line in lines if any(word in line for word in telling)]
        raise CompileError(f"{what}: {(known or lines or ['no message'])[0].strip()}")
