"""What probes are told: each thing that was looked at, and whether it is as it should be."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `problem` is empty where nothing is wrong with it; it holds no secret."""

    name: str
    problem: str = ""


def build_report(kind: str, checks: Iterable[Check], *, verbose: bool) -> tuple[int, str]:
    """Status and text of an answer. Kubernetes' own components write theirs in this way.

    `kind` is livez or readyz. What fails is always listed.
    """
    checks = tuple(checks)
    failed = any(check.problem for check in checks)
    if not failed and not verbose:
        return 200, "ok\n"
    lines = [
        f"[-]{check.name} failed: {check.problem}" if check.problem else f"[+]{check.name} ok"
        for check in checks
    ]
    lines.append(f"{kind} check {'failed' if failed else 'passed'}")
    return 503 if failed else 200, "\n".join(lines) + "\n"
