import copy
import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.errors import TargetError
from targets.shapes import PRECISIONS
from targets.target import Target, known_targets, load_target, read_target, targets_folder

DOCUMENT = tomllib.loads((targets_folder() / "crazyflie21.toml").read_text())


def dump(table: dict[str, Any], prefix: str = "") -> str:
    """A TOML document of the kinds of values that target files hold."""
    plain = {k: v for k, v in table.items() if not isinstance(v, dict)}
    text = f"[{prefix}]\n" if prefix else ""
    for key, value in plain.items():
        if isinstance(value, bool):
            text += f"{key} = {str(value).lower()}\n"
        elif isinstance(value, list):
            text += f"{key} = [{', '.join(repr(v) for v in value)}]\n"
        else:
            text += f"{key} = {value!r}\n"
    for key, value in table.items():
        if isinstance(value, dict):
            text += dump(value, f"{prefix}.{key}" if prefix else key)
    return text


def fields(table: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in table.items():
        if path[:1] != ("fit",) and key != "fit":
            found.append((*path, key))
            if isinstance(value, dict):
                found += fields(value, (*path, key))
    return found


def read(document: dict[str, Any], folder: Path) -> Target:
    path = folder / "board.toml"
    path.write_text(dump(document))
    return read_target(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("boards")


BOARDS = known_targets()
SHIPPED = {n: tomllib.loads((targets_folder() / f"{n}.toml").read_text()) for n in BOARDS}
ALONE = sorted(name for name, document in SHIPPED.items() if "based_on" not in document)


@pytest.mark.parametrize("name", BOARDS)
def test_every_shipped_target_loads(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    for precision in target.precisions:  # all can be predicted, in both placements
        assert {f"{precision}.flash", f"{precision}.ram"} <= target.fit.keys()
    has_cycles = {any(k.startswith("cycles_") for k in fit) for fit in target.fit.values()}
    assert has_cycles == {target.timing is not None}
    assert (target.timing is not None) == (target.error_band > 0)


@pytest.mark.parametrize("name", BOARDS)
def test_every_figure_of_a_shipped_target_has_its_source(name: str) -> None:
    text = (targets_folder() / f"{name}.toml").read_text().split("[fit.")[0]
    figures = "clock_hz", "origin", "size_bytes", "free_bytes", "wait_states", "isa_flags"
    for line in text.splitlines():
        if line.startswith(figures):
            assert len(line.partition("#")[2].strip()) > 5, line


def test_the_targets_that_are_promised() -> None:
    cores = {name: load_target(name).core for name in BOARDS}
    assert cores == {
        "bolt": "cortex_m4f",
        "crazyflie-bl": "cortex_m4f",
        "crazyflie21": "cortex_m4f",
        "host": "native",
        "nrf52840": "cortex_m4f",
        "rp2040": "cortex_m0plus",
        "stm32f4-discovery": "cortex_m4f",
        "stm32h743": "cortex_m7",
    }
    assert load_target("rp2040").precisions[0] == "i16"  # no FPU


def test_no_code_knows_a_board_by_name() -> None:
    """Adding a board is adding a file; examples in help texts alone may name the Crazyflie."""
    root = targets_folder().parent
    sources = [p for room in ("targets", "compile", "hil") for p in (root / room).rglob("*.py")]
    for source in sources:
        words = set(re.findall(r"[\w-]+", source.read_text()))
        assert not words & set(BOARDS) - {"crazyflie21", "host"}, source
        assert '== "host"' not in source.read_text()


def test_crazyflie_figures() -> None:
    target = load_target("crazyflie21")
    flash = target.memories["flash"]
    assert (flash.origin, flash.size_bytes, flash.wait_states) == (0x0800_4000, 1_032_192, 5)
    assert flash.origin + flash.size_bytes == 0x0800_0000 + 2**20
    assert target.memories["ram"].size_bytes == 131_072
    assert target.clock_hz / target.control_hz > target.deadline_us  # cycles in a period
    assert flash.holds(0x0800_4000)
    assert not flash.holds(0x0810_0000)
    assert target.with_flash_wait_states(0).memories["flash"].wait_states == 0
    assert flash.wait_states == 5


def test_unknown_target_lists_the_known() -> None:
    with pytest.raises(TargetError, match=r"unknown target 'nope': .*crazyflie21"):
        load_target("nope")


@pytest.mark.parametrize("name", ALONE)
def test_written_again_reads_the_same(name: str, folder: Path) -> None:
    assert read(SHIPPED[name], folder) == load_target(name)


OWN = {"based_on": "crazyflie21", "name": "mine"}


def test_based_on_takes_the_rest_from_another_board(folder: Path) -> None:
    base = load_target("crazyflie21")
    mine = read({**OWN, "memories": {"ram": {"free_bytes": 7}}}, folder)
    ram = dataclasses.replace(base.memories["ram"], free_bytes=7)
    assert mine == dataclasses.replace(base, name="mine", memories={**base.memories, "ram": ram})


@pytest.mark.parametrize(
    "change",
    [
        {"memories": {"flash": {"wait_states": 3}}},
        {"timing": {"load": 3}},
        {"optimise": ["-O3"]},
        {"isa_flags": ["-mcpu=cortex-m4"]},
    ],
)
def test_a_fit_is_not_taken_from_another_core_or_flash(
    change: dict[str, Any], folder: Path
) -> None:
    assert read({**OWN, **change}, folder).fit == {}
    own = {"f32": {"flash": {"cycles_fixed": 1.5}}}
    assert read({**OWN, **change, "fit": own}, folder).fit.keys() >= {"f32.flash"}


def native(**changes: Any) -> dict[str, Any]:
    return {**SHIPPED["host"], **changes}


def board(**changes: Any) -> dict[str, Any]:
    return {**SHIPPED["rp2040"], **changes}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"based_on": "toaster"}, "based_on must be one of bolt"),
        ({"based_on": "bolt"}, "based_on bolt, which is itself based on another"),
        ({**OWN, "memories": {"flash": {"free_bytes": 1 << 30}}}, "must lie within 0..size_bytes"),
        (board(precisions=[]), "precisions must list some of f32"),
        (board(precisions=["f16"]), "precisions must list some of f32"),
        (board(precisions=["i8", "i8"]), "each once"),
        (board(core="cortex_m99"), "core must be one of cortex_m0plus, "),
        (board(error_band=0.2), r"error_band needs a \[timing\] table"),
        (board(timing=DOCUMENT["timing"]), "error_band is missing"),
        (
            board(timing=DOCUMENT["timing"], error_band=0.3, gate_margin=1.4),
            r"memories\.\w+\.wait_states is missing",
        ),
        (board(colour="green"), "colour is not known"),
        (board(firmware="crazyflie"), "platform is missing"),
        (native(clock_hz=1), "clock_hz has no meaning for core 'native'"),
        (native(memories=DOCUMENT["memories"]), "memories has no meaning"),
        (native(toolchain="arm-"), "toolchain has no meaning"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    document: dict[str, Any], message: str, folder: Path
) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        read(document, folder)
    assert "\n" not in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), name=st.sampled_from(ALONE), value=st.one_of(st.none(), st.integers(-9, 9)))
def test_a_damaged_file_of_any_target_is_read_or_refused_in_one_line(
    data: st.DataObject, name: str, value: int | None, folder: Path
) -> None:
    document = copy.deepcopy(SHIPPED[name])
    path = data.draw(st.sampled_from(fields(document)))
    table = document
    for key in path[:-1]:
        table = table[key]
    if value is None:
        del table[path[-1]]
    else:
        table[path[-1]] = value
    problem = ""
    try:
        assert set(read(document, folder).precisions) <= set(PRECISIONS)
    except TargetError as error:
        problem = str(error)
    assert not problem or ("board.toml" in problem and "\n" not in problem)


@pytest.mark.parametrize("path", fields(DOCUMENT), ids=".".join)
def test_a_missing_field_is_named(path: tuple[str, ...], folder: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    table = document
    for key in path[:-1]:
        table = table[key]
    del table[path[-1]]
    if path == ("memories", "ccm"):
        assert "ccm" not in read(document, folder).memories  # not every board has one
        return
    if path == ("timing",):  # not every core has a model, but a band without one means nothing
        with pytest.raises(TargetError, match=r"error_band needs a \[timing\] table"):
            read(document, folder)
        return
    with pytest.raises(TargetError, match=rf"board\.toml: .*{path[-1]}.* is missing$"):
        read(document, folder)


junk = st.one_of(
    st.integers(max_value=-1),
    st.floats(allow_nan=False, allow_infinity=False, max_value=-0.5),
    st.just(""),
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(path=st.sampled_from(fields(DOCUMENT)), value=junk)
def test_a_wrong_value_is_one_line(path: tuple[str, ...], value: Any, folder: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    table = document
    for key in path[:-1]:
        table = table[key]
    table[path[-1]] = value
    with pytest.raises(TargetError, match=path[-1]) as caught:
        read(document, folder)
    assert "\n" not in str(caught.value)


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_is_refused(text: str, folder: Path) -> None:
    path = folder / "noise.toml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(TargetError, match=r"noise\.toml"):
        read_target(path)


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"gone\.toml: not a readable TOML file"):
        read_target(tmp_path / "gone.toml")
