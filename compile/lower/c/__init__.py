"""Network -> policy.h, policy.c and policy_golden.h: C99 that reads as if written by hand."""

from compile.lower.c.generate import (
    FROM_C,
    CoreKernels,
    core_kernels,
    fixed_source,
    golden_header,
    policy_header,
    policy_source,
    rejected_action,
)

__all__ = [
    "FROM_C",
    "CoreKernels",
    "core_kernels",
    "fixed_source",
    "golden_header",
    "policy_header",
    "policy_source",
    "rejected_action",
]
