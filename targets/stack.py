"""How deep a function's stack goes, from GCC's call graph (-fcallgraph-info=su)."""

from __future__ import annotations

import re

from targets.errors import TargetError

_NODE = re.compile(r'node: \{ title: "([^"]+)" label: "([^"]*)"')
_EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')
_USAGE = re.compile(r"(\d+) bytes \((static|dynamic|dynamic,bounded)\)")


def deepest_stack(call_graph: str, entry: str) -> int:
    """Bytes of the deepest path below `entry`, its own frame included.

    `call_graph` is the text of a .ci file. A callee in another object counts 0 bytes: a policy
    calls none. Raises TargetError when there is recursion, a frame of unknown size or no `entry`.
    """
    frames: dict[str, int] = {}
    for title, label in _NODE.findall(call_graph):
        usage = _USAGE.search(label)
        if usage is None:
            continue
        if usage[2] == "dynamic":
            raise TargetError(f"{title} has a stack frame of unknown size (alloca or a VLA)")
        frames[title] = int(usage[1])
    callees: dict[str, set[str]] = {}
    for caller, callee in _EDGE.findall(call_graph):
        callees.setdefault(caller, set()).add(callee)
    if entry not in frames:
        raise TargetError(f"no function {entry} in the policy's source")

    def depth(function: str, path: tuple[str, ...]) -> int:
        if function in path:
            raise TargetError(f"{function} calls itself: its stack has no bound")
        inner = (depth(callee, (*path, function)) for callee in callees.get(function, ()))
        return frames.get(function, 0) + max(inner, default=0)

    return depth(entry, ())
