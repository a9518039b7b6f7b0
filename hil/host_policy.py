"""The package's policy.c on this machine, for many observations at once."""

from __future__ import annotations

import contextlib
import ctypes
import tempfile
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import numpy as np

from hil.contract import Floats
from hil.errors import HilError

Answer = Callable[[Floats], Floats]  # observations (n, obs_dim) -> actions (n, act_dim)


@contextlib.contextmanager
def host_policy(folder: Path, act_dim: int) -> Iterator[Answer]:
    """Compiles `folder`/policy.c for this machine. Raises HilError when that fails."""
    from targets.errors import TargetError
    from targets.toolchain import compile_host_library

    loop = resources.files("hil") / "templates" / "policy_batch.c"
    with tempfile.TemporaryDirectory(prefix="hyperppo-") as name, resources.as_file(loop) as source:
        try:
            library = compile_host_library(
                [source, folder / "policy.c"], Path(name) / "policy.so", include=[folder]
            )
        except TargetError as error:
            raise HilError(str(error)) from None
        batch = ctypes.CDLL(str(library)).policy_batch
        pointer = np.ctypeslib.ndpointer(np.float32, ndim=2, flags="C_CONTIGUOUS")
        batch.argtypes, batch.restype = [pointer, pointer, ctypes.c_int], None

        def answer(observations: Floats) -> Floats:
            actions = np.full((len(observations), act_dim), np.nan, np.float32)
            batch(np.ascontiguousarray(observations, np.float32), actions, len(observations))
            return actions

        yield answer
