"""The tflm backend beside the C backend: bytes and errors of the shipped run's policies.

Sizes of C are of a linked image, code and stack included; of TFLM model and arena, without TFLM's
code. Errors are of an action against onnxruntime, on observations of that very policy's rollouts.

    python benchmarks/tflm.py [--arch 4 --arch 64,64] [--json build/tflm.json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from compile import verify
from compile.candidate import Exported, export
from compile.candidate_tflm import error_bound, make_policy
from compile.device import run_host
from compile.lower import c as lowering
from compile.lower.tflm.arena import arena, target_arena
from compile.lower.tflm.interpret import Interpreter, check_arena_rules
from compile.progress import Progress
from compile.quantize import quantize
from compile.source_run import open_run
from hyperppo.space import parse_architecture
from targets.target import load_target
from targets.toolchain import compile_host_library, link_image, policy_sizes

MAIN = (
    '#include "policy.h"\nstatic float o[POLICY_OBS_DIM], a[POLICY_ACT_DIM];\n'
    "int main(void) { policy_step(o, a); return 0; }\n"
)


def c_backend(exported: Exported, precision: str, folder: Path) -> dict[str, Any]:
    target, network = load_target("crazyflie21"), exported.network
    kernels = lowering.core_kernels(target.core)
    if precision == "f32":
        source = lowering.policy_source(network, "Policy", [], "flash", kernels)
    else:
        fixed = quantize(network, exported.observations, precision)
        source = lowering.fixed_source(fixed, "Policy", [], "flash", kernels)
    (folder / "policy.h").write_text(lowering.policy_header(network, "Policy", []))
    (folder / "policy.c").write_text(source)
    (folder / "main.c").write_text(MAIN)
    image = link_image(
        target,
        [folder / "main.c"],
        folder / "policy.elf",
        policy_source=folder / "policy.c",
        include=[folder],
    )
    library = compile_host_library(
        [folder / "policy.c"], folder / f"{precision}.so", include=[folder]
    )
    actions = run_host(library, exported.observations, network.act_dim)
    total = policy_sizes(folder / "policy.elf", image.stack_bytes).total
    return {"bytes": total, **errors(actions, exported.actions)}


def tflm_backend(exported: Exported, precision: str) -> dict[str, Any]:
    policy = make_policy(exported.network, exported.observations, precision)
    interpreter = Interpreter(policy)
    actions = interpreter.forward(exported.observations)
    check_arena_rules(interpreter, policy.model)
    found = {
        "model": len(policy.content),
        "arena": target_arena(policy.model),
        "rules": arena(policy.model, pointer=4, recording=False).peak,
        "host": sum(interpreter.used()),
        **errors(actions, exported.actions),
    }
    if precision != "f32":
        bound = error_bound(policy, policy.encode(exported.observations), exported.actions)
        found["bound"] = float(bound.max())
    return found


def errors(actions: Any, expected: Any) -> dict[str, float]:
    off = np.abs(actions.astype(np.float64) - expected)
    return {"max": float(off.max()), "rms": float(np.sqrt((off**2).mean()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", action="append", help="default: 4, 16, 16,128 and 64,64")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    source = open_run(None, "crazyflie21")
    rows = []
    print("| policy | | C bytes | C error max / rms | model | arena (rules; host used) | "
          "TFLM error max / rms | bound |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for name in arguments.arch or ["4", "16", "16,128", "64,64"]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            exported = export(source, source.index(parse_architecture(name)), 0, folder, Progress())
            for precision in ("f32", "i16", "i8"):
                c = c_backend(exported, precision, folder)
                t = tflm_backend(exported, precision)
                rows.append({"policy": name, "precision": precision, "c": c, "tflm": t})
                print(
                    f"| {name} | {precision} | {c['bytes']} | {c['max']:.1e} / {c['rms']:.1e} | "
                    f"{t['model']} | {t['arena']} ({t['rules']}; {t['host']}) | "
                    f"{t['max']:.1e} / {t['rms']:.1e} | {t.get('bound', verify.TOLERANCE):.1e} |",
                    flush=True,
                )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
