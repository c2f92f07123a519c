"""Every error of the tree is raised somewhere, and nothing a user gives meets an assertion."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import simulator
from simulator import errors

PACKAGE = Path(simulator.__file__).parent
KINDS = [
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.SimulatorError) and kind is not errors.SimulatorError
]


def raised() -> set[str]:
    """Names of the exceptions that any module constructs."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found.add(node.func.id)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_error_is_raised_somewhere(kind: str) -> None:
    assert kind in raised()


def test_messages_are_never_empty() -> None:
    examples = [
        errors.UnknownNameError("hardware", "x", ["y"]),
        errors.CapacityError(2e9, 1e9, [("weights", 2e9)]),
        errors.UnsupportedError("this", ["that", "those"]),
        errors.GraphError("op", "pass", "why"),
        errors.SpecError([errors.Problem("file", 0, 0, "", "message")]),
    ]
    assert [str(error) for error in examples] == [
        "unknown hardware 'x'; `ridgeline list hardware` shows all" if not errors.close_matches("x", ["y"]) else "",
        "needs 2.0 GB where 1.0 GB are usable; largest: weights 2.0 GB",
        "this is not supported; use 'that' or 'those'",
        "op 'op' after pass: why",
        "file: message",
    ]
