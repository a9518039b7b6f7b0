"""Network -> policy.tflite, policy_tflm.cc and policy_tflm.h, by way of TensorFlow."""

import importlib.util

from compile.errors import CompileError

INSTALL = "pip install -c constraints.txt -e '.[tflm]'"
PACKAGES = ("tensorflow", "tflite_micro")


def require() -> None:
    """CompileError, with the command that installs them, where a package is missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        names = " and ".join(name.replace("_", "-") for name in missing)
        raise CompileError(f"--backend tflm needs {names}, not installed here: {INSTALL}")
