"""Compilers: the host's for checks on this machine, the target's for linked images and sizes."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from targets.errors import TargetError
from targets.stack import deepest_stack
from targets.target import Target, targets_folder

WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow")
HOST_FLAGS = ("-O2", "-ffp-contract=off")  # contraction would round differently from the target
POLICY_OBJECT = "policy_unit.o"  # the name that link.ld looks for


class ToolchainMissing(TargetError):  # noqa: N818 - says a state, not a mistake
    """No compiler for the target on this machine; the message says what to install."""


@dataclasses.dataclass(frozen=True)
class Image:
    """A linked image: the ELF and how it was made."""

    elf: Path
    compiler_version: str  # first line of `gcc --version`
    flags: tuple[str, ...]  # of the policy's source
    stack_bytes: int  # deepest path below policy_step, its own frame included
    runtime: tuple[str, ...] = ()  # functions of the compiler's library that it calls: soft float


@dataclasses.dataclass(frozen=True)
class PolicySizes:
    """Bytes of the policy in a linked image, by section, and its stack.

    `text` includes what it calls of the compiler's runtime library, such as soft float.
    """

    text: int
    rodata: int
    data: int
    bss: int
    stack: int

    @property
    def flash(self) -> int:
        """Bytes in flash: code, constants and the load image of initialised data."""
        return self.text + self.rodata + self.data

    @property
    def ram(self) -> int:
        """Bytes in RAM, the stack included."""
        return self.data + self.bss + self.stack

    @property
    def total(self) -> int:
        """Every byte once: what `--budget-kb` caps."""
        return self.text + self.rodata + self.data + self.bss + self.stack


def cross_prefix(target: Target) -> str:
    """Prefix of the target's tools; the environment's HYPERPPO_CROSS (`/opt/x/bin/arm-`) wins."""
    return os.environ.get("HYPERPPO_CROSS") or target.toolchain


def install_hint(target: Target) -> str:
    """What to do when the target's compiler is missing."""
    if target.toolchain == "arm-none-eabi-":
        return "sudo apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi"
    return f"install a compiler called {target.toolchain}gcc"


def find_cross(target: Target) -> str:
    """Path of the target's C compiler. ToolchainMissing when it is not installed."""
    if target.native:
        return host_compiler()
    name = cross_prefix(target) + "gcc"
    path = shutil.which(name)
    if path is None:
        raise ToolchainMissing(f"no {name} on this machine: {install_hint(target)}")
    return path


def host_compiler() -> str:
    """Path of this machine's C compiler (the environment's CC wins)."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        path = shutil.which(name) if name else None
        if path is not None:
            return path
    raise ToolchainMissing("no C compiler on this machine: sudo apt-get install gcc")


def compile_host_library(
    sources: Sequence[Path],
    out_so: Path,
    *,
    include: Sequence[Path] = (),
    flags: Sequence[str] = HOST_FLAGS,
) -> Path:
    """Compiles C99 sources for this machine into a shared library, warnings being errors."""
    with tempfile.TemporaryDirectory(prefix=".host-", dir=out_so.parent) as folder:
        built = Path(folder) / out_so.name
        command = [host_compiler(), *WARNINGS, *flags, "-fPIC", "-shared"]
        command += [f"-I{path}" for path in include]
        _compile([*command, *map(str, sources), "-o", str(built)])
        built.replace(out_so)
    return out_so


def link_image(
    target: Target,
    sources: Sequence[Path],
    out_elf: Path,
    *,
    policy_source: Path,
    include: Sequence[Path] = (),
    defines: Mapping[str, str] | None = None,
    weights_in: str = "flash",
    entry: str = "policy_step",
) -> Image:
    """Compiles and links start-up, `sources` and the policy into a bare image for the target.

    `weights_in` "ram" links the policy's constants into .policy_data, loaded from flash at
    start-up. The same inputs give the same bytes, wherever they lie. For the native core it is a
    program for this machine, without start-up, and the policy's object stays beside it. Raises
    TargetError with the compiler's first complaint.
    """
    if weights_in not in ("flash", "ram"):
        raise TargetError(f"weights cannot lie in {weights_in!r}: choose flash or ram")
    if target.native:
        return _link_native(target, sources, out_elf, policy_source, include, entry)
    compiler = find_cross(target)
    cores = targets_folder() / "cores"
    common = [*target.isa_flags, "-fno-common", "-g0"]
    common += [f"-D{name}={value}" for name, value in (defines or {}).items()]
    common += [f"-I{path}" for path in include]
    policy_flags = (*WARNINGS, *target.optimise)
    with tempfile.TemporaryDirectory(prefix=".image-", dir=out_elf.parent) as name:
        folder = Path(name)
        objects = []
        for number, source in enumerate([cores / "startup.c", *sources]):
            built = folder / f"unit{number}_{source.stem}.o"
            flags = ["-std=gnu11", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
            _compile([compiler, *common, *flags, *_one_unit(source, built)])
            objects.append(built)
        policy = folder / POLICY_OBJECT
        usage = ["-fcallgraph-info=su"]
        _compile([compiler, *common, *policy_flags, *usage, *_one_unit(policy_source, policy)])
        runtime = undefined_symbols(policy)
        script = folder / "link.ld"
        link = [*target.isa_flags, "-nostartfiles", "-specs=nano.specs"]
        members = _library_members([compiler, *link], policy, entry) if runtime else ()
        script.write_text(linker_script(target, weights_in, members), encoding="utf-8")
        built = folder / "image.elf"
        link += [f"-T{script}"]
        # -n: no pages here; ld 2.44 would load the ELF header in the page before the vectors.
        link += ["-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,--fatal-warnings", "-Wl,-n"]
        _compile([compiler, *link, *map(str, [*objects, policy]), "-o", str(built)])
        stack = deepest_stack(policy.with_suffix(".ci").read_text(encoding="utf-8"), entry)
        built.replace(out_elf)
    built_with = (*target.isa_flags, *policy_flags)
    return Image(out_elf, compiler_version(compiler), built_with, stack, runtime)


def _link_native(
    target: Target,
    sources: Sequence[Path],
    out: Path,
    policy_source: Path,
    include: Sequence[Path],
    entry: str,
) -> Image:
    compiler = host_compiler()
    common = [*target.isa_flags, *(f"-I{path}" for path in include)]
    flags = (*target.isa_flags, *WARNINGS, *target.optimise)
    with tempfile.TemporaryDirectory(prefix=".native-", dir=out.parent) as name:
        folder = Path(name)
        policy, built = folder / POLICY_OBJECT, folder / "program"
        usage = ["-fcallgraph-info=su", "-fno-asynchronous-unwind-tables"]
        prefix_map = f"-ffile-prefix-map={policy_source.parent}=."
        unit = [prefix_map, "-c", str(policy_source), "-o", str(policy)]
        _compile([compiler, *common, *WARNINGS, *target.optimise, *usage, *unit])
        _compile([compiler, *common, "-O2", *map(str, [*sources, policy]), "-o", str(built)])
        stack = deepest_stack(policy.with_suffix(".ci").read_text(encoding="utf-8"), entry)
        policy.replace(out.parent / policy.name)
        built.replace(out)
    return Image(out, compiler_version(compiler), flags, stack)


def native_sizes(program: Path, stack_bytes: int) -> PolicySizes:
    """Sizes of the policy in a native program: its object's sections, by what they are for."""
    sizes = dict.fromkeys(("text", "rodata", "data", "bss"), 0)
    with (program.parent / POLICY_OBJECT).open("rb") as stream:
        for section in ELFFile(stream).iter_sections():
            flags = section["sh_flags"]
            if not flags & SH_FLAGS.SHF_ALLOC or section["sh_type"] == "SHT_NOTE":
                continue
            if flags & SH_FLAGS.SHF_EXECINSTR:
                kind = "text"
            elif section["sh_type"] == "SHT_NOBITS":
                kind = "bss"
            else:
                kind = "data" if flags & SH_FLAGS.SHF_WRITE else "rodata"
            sizes[kind] += int(section["sh_size"])
    return PolicySizes(**sizes, stack=stack_bytes)


def undefined_symbols(unit: Path) -> tuple[str, ...]:
    """Names that an object file takes from elsewhere, sorted."""
    with unit.open("rb") as stream:
        sections = ELFFile(stream).iter_sections()
        tables = [section for section in sections if isinstance(section, SymbolTableSection)]
        symbols = (symbol for table in tables for symbol in table.iter_symbols())
        return tuple(sorted(s.name for s in symbols if s["st_shndx"] == "SHN_UNDEF" and s.name))


def policy_sizes(elf: Path, stack_bytes: int) -> PolicySizes:
    """Sizes of the policy's sections in an image that `link_image` made."""
    with elf.open("rb") as stream:
        sizes = {
            section.name: int(section["sh_size"]) for section in ELFFile(stream).iter_sections()
        }
    if ".policy_text" not in sizes:
        raise TargetError(f"{elf}: no .policy_text section; it was not linked by this project")
    return PolicySizes(
        text=sizes[".policy_text"] + sizes.get(".policy_runtime", 0),
        rodata=sizes.get(".policy_rodata", 0),
        data=sizes.get(".policy_data", 0),
        bss=sizes.get(".policy_bss", 0),
        stack=stack_bytes,
    )


def compiler_version(compiler: str) -> str:
    """First line of what the compiler says about itself."""
    reply = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    return reply.stdout.splitlines()[0].removeprefix(str(Path(compiler).parent) + "/")


def _one_unit(source: Path, built: Path) -> list[str]:
    prefix_map = [f"-ffile-prefix-map={source.parent}=.", f"-ffile-prefix-map={built.parent}=."]
    return [
        *prefix_map,
        "-ffunction-sections",
        "-fdata-sections",
        "-c",
        str(source),
        "-o",
        str(built),
    ]


def linker_script(target: Target, weights_in: str = "flash", members: Sequence[str] = ()) -> str:
    """The text of the linker script for a target's memories.

    `members`: objects of the compiler's library that count as the policy's.
    """
    memory = "\n".join(
        f"    {name} ({'rx' if name == 'flash' else 'rwx'}) : "
        f"ORIGIN = {region.origin:#010x}, LENGTH = {region.size_bytes}"
        for name, region in target.memories.items()
    )
    constants, data = "*policy_unit.o(.rodata .rodata.*)", "*policy_unit.o(.data .data.*)"
    in_ram = weights_in == "ram"
    runtime = " ".join(f"*libgcc.a:{member}(.text .text.* .rodata .rodata.*)" for member in members)
    template = targets_folder() / "cores" / "link.ld"
    text = template.read_text(encoding="utf-8").replace("@MEMORY@", memory)
    text = text.replace("@POLICY_RUNTIME@", runtime)
    text = text.replace("@POLICY_RODATA@", "" if in_ram else constants)
    return text.replace("@POLICY_DATA@", f"{constants} {data}" if in_ram else data)


def _library_members(link: Sequence[str], policy: Path, entry: str) -> tuple[str, ...]:
    """Objects of libgcc that the policy needs where nothing else is linked."""
    alone, listing = policy.with_name("alone.elf"), policy.with_name("alone.map")
    options = [f"-Wl,--entry={entry}", "-Wl,--gc-sections", f"-Wl,-Map={listing}"]
    _compile([*link, *options, str(policy), "-o", str(alone)])
    found = re.findall(r"libgcc\.a\(([^)\s]+)\)", listing.read_text(encoding="utf-8"))
    return tuple(sorted(set(found)))


def _compile(command: Sequence[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = result.stderr.splitlines()
        complaint = next((line for line in lines if "error:" in line), lines[-1:] or "")
        raise TargetError(f"{Path(command[0]).name} failed: {complaint}")
