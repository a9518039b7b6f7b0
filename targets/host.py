"""A policy.c on this machine, for many observations at once."""

from __future__ import annotations

import contextlib
import ctypes
import tempfile
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from targets.toolchain import compile_host_library

Floats = NDArray[np.float32]
Answer = Callable[[Floats], Floats]  # observations (n, obs_dim) -> actions (n, act_dim)


@contextlib.contextmanager
def host_policy(folder: Path, act_dim: int) -> Iterator[Answer]:
    """Compiles `folder`/policy.c for this machine. Raises TargetError when that fails."""
    loop = resources.files("targets") / "cores" / "host" / "policy_batch.c"
    with tempfile.TemporaryDirectory(prefix="hyperppo-") as name, resources.as_file(loop) as source:
        library = compile_host_library(
            [source, folder / "policy.c"], Path(name) / "policy.so", include=[folder]
        )
        batch = ctypes.CDLL(str(library)).policy_batch
        pointer = np.ctypeslib.ndpointer(np.float32, ndim=2, flags="C_CONTIGUOUS")
        batch.argtypes, batch.restype = [pointer, pointer, ctypes.c_int], None

        def answer(observations: Floats) -> Floats:
            actions = np.full((len(observations), act_dim), np.nan, np.float32)
            batch(np.ascontiguousarray(observations, np.float32), actions, len(observations))
            return actions

        yield answer
