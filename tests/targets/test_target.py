import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.errors import TargetError
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


def test_every_shipped_target_loads() -> None:
    assert "crazyflie21" in known_targets()
    for name in known_targets():
        assert load_target(name).name == name


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


def test_written_again_reads_the_same(folder: Path) -> None:
    assert read(DOCUMENT, folder) == load_target("crazyflie21")


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
