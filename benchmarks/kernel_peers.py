"""The same policies in C as other tools would have it, and figures that were recorded elsewhere.

Each source defines policy_step for a network of leaky ReLU layers and a clipped output, as
`compile.lower.c` does. emlearn has no leaky ReLU: it runs ReLU, which costs it less.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compile.network import Network

EMLEARN = "emlearn==0.23.2"  # MIT
CMSIS_DSP = "cmsisdsp==1.10.3"  # Apache 2.0; the package holds the C library's source

RECORDED = {
    # Cycles at 0 / 5 flash wait states with this project's cycle model (P = 2, cold caches),
    # tanh, 18 inputs, weights in flash, the best of -Os, -O2 and -O3 -ffast-math, GCC 12.2.
    # Source: this project's feasibility study of 2026; it did not record the tools' versions.
    "onnx2c": {"4": (1783, 2049), "16": (6759, 7428), "64": (28_300, 30_300),
               "64,64": (85_100, 92_900), "256,256,256": (1_647_000, 1_824_000)},
    "RLtools optimised": {"4": (1426, 1817), "16": (4997, 6104), "64": (19_700, 23_600),
                          "64,64": (54_700, 71_600), "256,256,256": (1_118_000, 1_318_000)},
    "TFLM float32": {"4": (3955, 4753), "16": (9355, 10_498), "64": (31_100, 33_700),
                     "64,64": (89_800, 98_500), "256,256,256": (1_662_000, 1_839_000)},
    "TFLM int8, CMSIS-NN": {"4": (5976, 7251), "16": (12_980, 15_550), "64": (41_000, 48_700),
                            "64,64": (84_800, 99_900), "256,256,256": (720_000, 834_000)},
    "CMSIS-NN int8 + table": {"4": (2668, 3012), "16": (4290, 4823), "64": (10_700, 11_800),
                              "64,64": (25_100, 28_500), "256,256,256": (377_000, 425_000)},
}  # fmt: skip

NOT_OURS = (
    "conversion", "sign-conversion", "float-conversion", "shadow", "unused-function",
    "unused-variable", "sign-compare", "unused-parameter", "type-limits", "cast-qual",
)  # fmt: skip
QUIET = "\n".join(f'#pragma GCC diagnostic ignored "-W{name}"' for name in NOT_OURS)


def fetch(folder: Path) -> dict[str, Path]:
    """Include folders of the peers that the package index has; missing ones are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, requirement in (("emlearn", EMLEARN), ("CMSIS-DSP", CMSIS_DSP)):
        target = folder / name
        if not target.is_dir():
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
            if name == "CMSIS-DSP":
                command += ["--no-binary", ":all:", "--no-build-isolation"]
            command += ["-d", str(folder), requirement]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                print(f"{requirement} cannot be downloaded: left out", file=sys.stderr)
                continue
            stem = requirement.replace("==", "-")
            if name == "emlearn":
                zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl").extractall(target)
            else:
                with tarfile.open(folder / f"{stem}.tar.gz") as archive:
                    archive.extractall(target, filter="data")
        header = "eml_net.h" if name == "emlearn" else "arm_math_types.h"
        found[name] = next(path.parent for path in target.rglob(header))
    return found


def plain_loops(network: Network) -> str:
    """What anyone would write: an array a layer, two loops, row by row."""
    body = [f"    static float {_buffers(network)};"]
    source = "observation"
    for index, layer in enumerate(network.layers):
        target = ("even", "odd")[index % 2]
        body.append(
            f"    for (int o = 0; o < {layer.n_out}; ++o) {{\n"
            f"        float sum = bias{index}[o];\n"
            f"        for (int k = 0; k < {layer.n_in}; ++k) {{\n"
            f"            sum += weight{index}[o][k] * {source}[k];\n        }}\n"
            f"        {target}[o] = {_activation(layer.activation, network)};\n    }}"
        )
        source = target
    return _source("", _arrays(network, transposed=False), body, source, network)


def cmsis_dsp(network: Network) -> str:
    """arm_mat_vec_mult_f32 a layer, bias and activation in a loop behind it."""
    head = (
        "#define __GNUC_PYTHON__\n" + QUIET + '\n#include "dsp/matrix_functions.h"\n'
        '#include "../Source/MatrixFunctions/arm_mat_vec_mult_f32.c"'
    )
    body = [f"    static float {_buffers(network)};"]
    source = "observation"
    for index, layer in enumerate(network.layers):
        target = ("even", "odd")[index % 2]
        matrix = f"{{{layer.n_out}, {layer.n_in}, (float *)&weight{index}[0][0]}}"
        body.append(
            f"    const arm_matrix_instance_f32 matrix{index} = {matrix};\n"
            f"    arm_mat_vec_mult_f32(&matrix{index}, {source}, {target});\n"
            f"    for (int o = 0; o < {layer.n_out}; ++o) {{\n"
            f"        const float sum = {target}[o] + bias{index}[o];\n"
            f"        {target}[o] = {_activation(layer.activation, network)};\n    }}"
        )
        source = target
    return _source(head, _arrays(network, transposed=False), body, source, network)


def emlearn(network: Network) -> str:
    """Emlearn's eml_net_infer; the functions of libm that it names are never called here."""
    stubs = "float expf(float x) { return x; }\nfloat tanhf(float x) { return x; }\n"
    head = QUIET + '\n#include "eml_net.h"\n' + stubs + "float logf(float x) { return x; }"
    layers = ",\n".join(
        f"    {{{layer.n_out}, {layer.n_in}, &weight{i}[0][0], bias{i}, "
        f"{'EmlNetActivationIdentity' if layer.activation == 'clip' else 'EmlNetActivationRelu'}}}"
        for i, layer in enumerate(network.layers)
    )
    count = len(network.layers)
    arrays = _arrays(network, transposed=True)
    arrays += f"static const EmlNetLayer layers[{count}] = {{\n{layers}\n}};\n"
    widest = max(network.obs_dim, *(layer.n_out for layer in network.layers))
    body = [
        f"    static float even[{widest}], odd[{widest}];",
        f"    EmlNet net = {{{count}, layers, even, odd, {widest}}};",
        f"    (void)eml_net_infer(&net, observation, {network.obs_dim});",
    ]
    return _source(head, arrays, body, "odd", network)


def _source(head: str, arrays: str, body: list[str], result: str, network: Network) -> str:
    low, high = network.clip
    return "\n".join(
        [
            head,
            '#include "policy.h"',
            arrays,
            "void policy_step(const float observation[POLICY_OBS_DIM], "
            "float action[POLICY_ACT_DIM])\n{",
            *body,
            f"    for (int i = 0; i < {network.act_dim}; ++i) {{\n"
            f"        const float v = {result}[i];\n"
            f"        action[i] = v < {low}f ? {low}f : (v > {high}f ? {high}f : v);\n    }}\n}}\n",
        ]
    )


def _buffers(network: Network) -> str:
    widest = max(layer.n_out for layer in network.layers)
    return f"even[{widest}], odd[{widest}]"


def _activation(name: str, network: Network) -> str:
    return f"sum > 0.0f ? sum : {network.negative_slope}f * sum" if name != "clip" else "sum"


def _arrays(network: Network, *, transposed: bool) -> str:
    text = ""
    for i, layer in enumerate(network.layers):
        weight = layer.weight.T if transposed else layer.weight
        rows = ",\n".join("    {" + _numbers(row) + "}" for row in weight)
        size = f"[{weight.shape[0]}][{weight.shape[1]}]"
        text += f"static const float weight{i}{size} = {{\n{rows}\n}};\n"
        text += f"static const float bias{i}[{layer.n_out}] = {{{_numbers(layer.bias)}}};\n"
    return text


def _numbers(row: NDArray[np.float32]) -> str:
    return ", ".join(f"{value:.9e}f" for value in row)
