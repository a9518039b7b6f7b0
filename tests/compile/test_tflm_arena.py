"""The arena by TFLM's allocation rules, against TFLM itself and against C's own layout."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compile.candidate_tflm import make_policy
from compile.errors import CompileError
from compile.lower.tflm.arena import (
    MARGIN_FIXED,
    arena,
    plan,
    structure_alignment,
    structure_bytes,
    target_arena,
)
from compile.lower.tflm.interpret import Interpreter, check_arena_rules
from compile.network import Network
from tests.compile.tflm import cases, installed, observations

MakeNetwork = Callable[..., Network]

# Too small an arena ends some tries in a crash: each is made in a process of its own.
SMALLEST = """
import os, sys
from tflite_micro import runtime

content = open(sys.argv[1], "rb").read()


def works(size):
    child = os.fork()
    if child == 0:
        os.close(2)
        try:
            runtime.Interpreter.from_bytes(content, arena_size=size).invoke()
        except RuntimeError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


low, high = 0, 4096
while high - low > 1:
    middle = (low + high) // 2
    low, high = (low, middle) if works(16 * middle) else (middle, high)
print(16 * high)
"""


@installed
@pytest.mark.parametrize(
    ("activation", "output", "hidden", "precision"),
    [*cases("f32", "i16", "i8"), ("leaky_relu", "clip", (128, 8, 32, 256), "i8")],
)
def test_rules_give_what_tflm_reports(
    activation: str,
    output: str,
    hidden: tuple[int, ...],
    precision: str,
    make_network: MakeNetwork,
    tmp_path: Path,
) -> None:
    network = make_network(hidden, activation=activation, output=output)
    x = observations(network, 20)
    policy = make_policy(network, x, precision)
    interpreter = Interpreter(policy)
    interpreter.forward(x)
    rules = check_arena_rules(interpreter, policy.model)
    assert (rules.head, rules.tail) == interpreter.used()
    file = tmp_path / "policy.tflite"
    file.write_bytes(policy.content)
    done = subprocess.run(
        [sys.executable, "-c", SMALLEST, str(file)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == rules.peak
    assert target_arena(policy.model) >= arena(policy.model, 4, False).peak + MARGIN_FIXED
    assert target_arena(policy.model) % 16 == 0


@installed
def test_other_rules_stop_everything(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network((4,))
    x = observations(network, 20)
    policy = make_policy(network, x, "f32")
    interpreter = Interpreter(policy)
    interpreter.forward(x)
    monkeypatch.setattr(interpreter, "used", lambda: (96, 1304))
    with pytest.raises(CompileError, match=r"reports an arena of 96 \+ 1304 B.*96 \+ 1296 B"):
        check_arena_rules(interpreter, policy.model)


@given(st.text("pib", min_size=1, max_size=12))
def test_structures_as_c_lays_them_out(fields: str) -> None:
    types = {"p": ctypes.c_void_p, "i": ctypes.c_int, "b": ctypes.c_bool}

    class Structure(ctypes.Structure):
        _fields_ = tuple((f"field{n}", types[field]) for n, field in enumerate(fields))

    pointer = ctypes.sizeof(ctypes.c_void_p)
    assert structure_bytes(fields, pointer) == ctypes.sizeof(Structure)
    assert structure_alignment(fields, pointer) == ctypes.alignment(Structure)


@given(
    st.lists(
        st.tuples(st.integers(1, 40).map(lambda n: 16 * n), st.integers(0, 6), st.integers(0, 6)),
        min_size=1,
        max_size=8,
    )
)
def test_a_plan_holds_what_lives_at_the_same_time(drawn: list[tuple[int, int, int]]) -> None:
    buffers = [(size, min(a, b), max(a, b)) for size, a, b in drawn]
    moments = [sum(s for s, first, last in buffers if first <= t <= last) for t in range(7)]
    assert max(moments) <= plan(buffers) <= sum(size for size, _, _ in buffers)


def test_a_chain_takes_its_largest_pair() -> None:
    """Of a chain of layers: two neighbours live at a time, and most plans get by with that."""
    sizes = [96, 256, 256, 16]
    chain = [(size, n, n + 1) for n, size in enumerate(sizes)]
    assert plan(chain) == max(a + b for a, b in itertools.pairwise(sizes))
