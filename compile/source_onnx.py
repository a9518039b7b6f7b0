"""An ONNX file as a source: one policy that others trained and exported."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.activation import cost_name
from compile.errors import CompileError
from compile.onnx_import import Imported, read_policy
from compile.source import Answer, Floats, Original

FEWEST = 64  # observations in a calibration file: fewer say little about ranges


@dataclass(frozen=True)
class OnnxSource:
    """See `compile.source.Source`."""

    path: Path
    imported: Imported
    sha256: str  # of the file, and of the weights that it keeps beside it
    calibration: Path | None
    recorded: Floats | None  # (n, obs_dim) the calibration file's

    form = "the original ONNX file"

    @property
    def summary(self) -> str:  # noqa: D102
        obs_dim, act_dim = self.dims
        return f"{self.path.name} ({self.imported.producer}), {obs_dim} -> {act_dim}"

    @property
    def names(self) -> tuple[str, ...]:  # noqa: D102
        return (self.imported.network.name,)

    @property
    def table(self) -> NDArray[np.int64]:  # noqa: D102
        return np.array([self.imported.network.hidden], dtype=np.int64)

    @property
    def dims(self) -> tuple[int, int]:  # noqa: D102
        return self.imported.network.obs_dim, self.imported.network.act_dim

    @property
    def activations(self) -> tuple[str, str]:
        """Hidden layers may differ: the cost model takes the first one's for all."""
        network = self.imported.network
        first, last = network.layers[0].activation, network.layers[-1].activation
        slope = network.negative_slope
        return cost_name(first, slope), cost_name(last, slope)

    @property
    def conventions(self) -> Mapping[str, Any]:  # noqa: D102
        return {}

    @property
    def provenance(self) -> dict[str, Any]:  # noqa: D102
        facts = {
            "file": self.path.name,
            "sha256": self.sha256,
            "producer": self.imported.producer,
            "input": self.imported.input,
            "output": self.imported.output,
            "calibration": None if self.calibration is None else self.calibration.name,
        }
        return {"onnx": facts}

    @property
    def essentials(self) -> str:  # noqa: D102
        return f"ONNX: {self.path.name}, sha256 {self.sha256[:16]}"

    @property
    def observed(self) -> str:  # noqa: D102
        if self.calibration is not None:
            return f"the calibration file {self.calibration.name}"
        return "a normal distribution behind the file's own normaliser, not from rollouts"

    def leaderboard(self) -> None:  # noqa: D102
        return None

    def index(self, architecture: tuple[int, ...]) -> int:  # noqa: D102
        raise CompileError("--arch chooses among a run's architectures; an ONNX file has one")

    def original(self, index: int) -> Original:  # noqa: D102
        return Original(self.imported.network, partial(run_original, self.path, self.imported))

    def observations(self, index: int, count: int, seed: int) -> Floats:
        """The calibration file's, evenly spaced; else standard normal once they are normalised."""
        if self.recorded is not None:
            places = np.linspace(0, len(self.recorded) - 1, min(count, len(self.recorded)))
            return np.ascontiguousarray(self.recorded[np.round(places).astype(int)])
        scale, shift = self.imported.scale, self.imported.shift
        normal = np.random.default_rng(seed).standard_normal((count, len(scale)))
        moves = scale != 0  # an observation that the file multiplies by zero
        return np.where(moves, (normal - shift) / np.where(moves, scale, 1), normal).astype(
            np.float32
        )

    def fly(self, answer: Answer, seed: int) -> None:  # noqa: D102
        return None


def open_onnx(path: Path, output: str | None, calibration: Path | None) -> OnnxSource:
    """Read a policy and its calibration observations. CompileError as `read_policy`."""
    imported = read_policy(path, output)
    recorded = None if calibration is None else read_observations(calibration, imported)
    return OnnxSource(path, imported, file_hash(path), calibration, recorded)


def read_observations(path: Path, imported: Imported) -> Floats:
    """(n, obs_dim) float32 of an .npy, or of an .npz with one array or one named observations.

    CompileError when it holds something else, or numbers that are not finite.
    """
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            array = loaded if isinstance(loaded, np.ndarray) else _observations(loaded)
    except Exception as error:  # zip, numpy and pickle each have their own for a damaged file
        raise CompileError(f"cannot read --calibration {path}: {error}") from None
    obs_dim = imported.network.obs_dim
    if array.dtype.kind not in "fiu" or array.ndim != 2 or array.shape[1] != obs_dim:
        raise CompileError(
            f"--calibration {path} holds {array.dtype} of shape {array.shape}; this policy takes "
            f"numbers of shape (n, {obs_dim})"
        )
    if len(array) < FEWEST:
        raise CompileError(
            f"--calibration {path} has {len(array)} observations, of {FEWEST} at least"
        )
    with np.errstate(over="ignore"):
        observations = array.astype(np.float32)
    if not np.isfinite(observations).all():
        raise CompileError(f"--calibration {path} has observations that are not finite")
    return observations


def _observations(archive: Any) -> NDArray[Any]:
    names = archive.files
    if len(names) != 1 and "observations" not in names:
        raise ValueError(f"it has the arrays {', '.join(names)}, none 'observations'")
    return np.asarray(archive["observations" if "observations" in names else names[0]])


def run_original(path: Path, imported: Imported, observations: Floats) -> Floats:
    """(n, obs_dim) -> (n, act_dim) of the file as it came in onnxruntime, one by one.

    So it works for any batch size. CompileError when onnxruntime refuses the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # its errors come as exceptions, its warnings tell no user
    try:
        session = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
        actions = []
        for observation in observations:
            call = np.broadcast_to(observation, (imported.batch, observation.size))
            feed = {imported.input: np.ascontiguousarray(call.reshape(imported.input_shape))}
            (result,) = session.run([imported.output], feed)
            actions.append(np.asarray(result, np.float32).reshape(imported.batch, -1)[0])
    except Exception as error:  # onnxruntime's own classes share no other base
        raise CompileError(f"onnxruntime cannot run {path}: {error}") from None
    return np.stack(actions)


def file_hash(path: Path) -> str:
    """SHA-256 over an ONNX file, and over the files that it keeps its weights in, by name."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    model = onnx.load(str(path), format="protobuf", load_external_data=False)
    outside = {
        ExternalDataInfo(tensor).location
        for tensor in model.graph.initializer
        if uses_external_data(tensor)
    }
    digest = hashlib.sha256(path.read_bytes())
    for name in sorted(outside):
        digest.update((path.parent / name).read_bytes())
    return digest.hexdigest()
