"""What tells one program from another: equal fingerprints mean programs that compute the same, whatever their inputs.

Shapes, primitives, parameters, constants by their bytes, and programs inside programs; variables count by
their order alone. Every cache that outlives a call is keyed by it.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import keystr, tree_flatten_with_path

from jaxchain.program.primitives import (
    Atom,
    ClosedJaxpr,
    JaxprEqn,
    Var,
    any_equation_of,
    dtype_of,
    is_jaxpr,
    is_used,
    is_var,
    opened,
)
from jaxchain.program.source import is_foreign

__all__ = ["Kept", "digest", "digests", "fingerprint", "mark_of", "repeated", "same_arrays", "tree_digest"]

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def fingerprint(
    equations: Sequence[JaxprEqn],
    inputs: Sequence[Var],
    outputs: Sequence[Atom],
    constants: Mapping[Var, Any],
    *,
    rules: bool = True,
) -> Hashable:
    """The fingerprint of the program that reads ``inputs`` and ``constants`` and returns ``outputs``.

    Parameters
    ----------
    equations
        In order of evaluation.
    inputs
        What it is called with: told apart by shape and dtype alone.
    outputs
        Variables or literals.
    constants
        What it closed over: told apart by their values; tracers by their identity.
    rules
        Whether the functions of custom derivative rules count, which JAX makes anew whenever it traces. Without,
        two traces of one function are equal.
    """
    number: dict[Any, int] = {}

    def mark(atom: Any) -> Hashable:
        if is_var(atom):
            return number.setdefault(atom, len(number)), atom.aval
        return "literal", atom.aval, _value(atom.val)

    head = tuple(map(mark, (*inputs, *constants)))
    body = tuple(
        (
            eqn.primitive.name,
            tuple((key, _value(v, rules)) for key, v in sorted(eqn.params.items()) if rules or not _is_rule(eqn, v)),
            tuple(map(mark, eqn.invars)),
            tuple(mark(var) if is_used(var) else None for var in eqn.outvars),
        )
        for eqn in equations
    )
    return head, tuple(map(_value, constants.values())), body, tuple(map(mark, outputs))


def repeated(equations: Sequence[JaxprEqn]) -> list[bool]:
    """Which equations compute again what an earlier one has: the same operation of the same values, without effects.

    A compiler runs it once. Programs inside programs are compared whole.
    """
    first: dict[Var, Var] = {}  # what is computed again, and what has the same value
    made: dict[Hashable, list[JaxprEqn]] = {}
    told: list[bool] = []

    def mark(atom: Atom) -> Hashable:
        return first.get(atom, atom) if is_var(atom) else (repr(atom.val), dtype_of(atom))

    for eqn in equations:
        # Parameters are compared where all else is equal: of programs that takes long.
        alike = made.setdefault((eqn.primitive.name, tuple(map(mark, eqn.invars))), [])
        same = None if eqn.effects else next((e for e in alike if _value(e.params) == _value(eqn.params)), None)
        told.append(same is not None)
        if same is None:
            alike.append(eqn)
        else:
            first.update((var, was) for var, was in zip(eqn.outvars, same.outvars, strict=True) if is_used(was))
    return told


@dataclass(frozen=True, eq=False)
class _Same:
    """An object that is equal to itself alone; held, so that no other can come to have its identity."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def same_arrays(values: Sequence[Any]) -> Hashable:
    """What tells constants from others without reading them: JAX's arrays, which never change, by their identity."""
    return tuple(_Same(value) if isinstance(value, jax.Array) else _value(value) for value in values)


def mark_of(closed: ClosedJaxpr) -> Hashable | None:
    """Equal for traces of one program, of the same constants and rules; ``None`` where that cannot be told.

    What is kept under it may be used in place of another trace: NumPy's arrays are written to in place, a tracer is of
    its trace alone, and what a rule that others wrote closes over cannot be seen.
    """
    jaxpr, consts = opened(closed)
    if not all(isinstance(value, jax.Array) and not isinstance(value, Tracer) for value in consts):
        return None
    if any(any_equation_of(eqn, is_foreign) for eqn in jaxpr.eqns):
        return None
    program = fingerprint(jaxpr.eqns, [*jaxpr.constvars, *jaxpr.invars], jaxpr.outvars, {}, rules=False)
    return program, same_arrays(consts)


def _is_rule(eqn: JaxprEqn, value: Any) -> bool:
    """Whether a parameter is a function of a custom derivative rule."""
    custom = eqn.primitive.name.startswith(("custom_jvp_call", "custom_vjp_call"))
    return custom and not is_jaxpr(value) and not isinstance(value, (int, tuple))


def _value(value: Any, rules: bool = True) -> Hashable:
    """A parameter or constant as something that can be compared."""
    if is_jaxpr(value):
        jaxpr, consts = opened(value)
        given = jaxpr.constvars[len(consts) :]  # of an open program all: whoever runs it hands them in
        known = dict(zip(jaxpr.constvars, consts, strict=False))
        return fingerprint(jaxpr.eqns, [*given, *jaxpr.invars], jaxpr.outvars, known, rules=rules)
    if isinstance(value, Tracer):
        return _Same(value)
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return _array(value)
    if isinstance(value, Mapping):
        return type(value), tuple((_value(key), _value(item, rules)) for key, item in value.items())
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_value(item, rules) for item in value)
    if isinstance(value, (float, complex)):
        return type(value), repr(value)  # NaN is NaN here, and −0 is not 0
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    return type(value), value  # 1, 1.0 and True are equal in Python, and no equal parameters


def _array(value: Any) -> Hashable:
    if jnp.issubdtype(value.dtype, jax.dtypes.extended):  # random keys
        return "key", str(value.dtype), _array(jax.random.key_data(value))
    if isinstance(value, jax.Array) and not (value.is_fully_addressable or value.is_fully_replicated):
        return str(value.dtype), value.shape, b""  # other processes hold parts of it
    array = np.asarray(value)
    return str(array.dtype), array.shape, hashlib.blake2b(np.ascontiguousarray(array).tobytes()).digest()


def digest(mark: Any) -> str:
    """A fingerprint in 32 letters that are the same in every process; arrays count by dtype, shape and bytes."""
    return _hashed(mark).hex()


def tree_digest(tree: Any, *more: Any) -> str:
    """The digest of a pytree of arrays, by the paths and values of leaves: how a structure prints may tell addresses."""
    parts = [
        (keystr(path), leaf if hasattr(leaf, "dtype") else np.asarray(leaf))
        for path, leaf in tree_flatten_with_path(tree)[0]
    ]
    return digest((*parts, *more))


def _hashed(mark: Any) -> bytes:
    if isinstance(mark, _Same):
        return _hashed((type(mark.value), ADDRESS.sub("", repr(mark.value))))
    if isinstance(mark, (np.ndarray, np.generic, jax.Array)):
        return _hashed(_array(mark))
    if isinstance(mark, (set, frozenset)):
        return _hashed(("set", *sorted(map(_hashed, mark))))  # whose order differs from process to process
    made = hashlib.blake2b(type(mark).__name__.encode(), digest_size=16)
    if isinstance(mark, tuple):
        for part in mark:
            made.update(_hashed(part))
    elif isinstance(mark, bytes):
        made.update(mark)
    else:
        made.update((mark.__qualname__ if isinstance(mark, type) else ADDRESS.sub("", repr(mark))).encode())
    return made.digest()


def digests(closed: ClosedJaxpr) -> tuple[str, str]:
    """Of a program's equations, and of the arrays that it closed over."""
    jaxpr, consts = opened(closed)
    equations = fingerprint(jaxpr.eqns, [*jaxpr.constvars, *jaxpr.invars], jaxpr.outvars, {}, rules=False)
    return digest(equations), digest(tuple(consts))


class Kept:
    """What was found for the last ``most`` programs, so that it is not looked for again. Safe to use from threads."""

    def __init__(self, most: int) -> None:
        self.most, self.found, self.lock = most, dict[Hashable, Any](), threading.Lock()

    def clear(self) -> None:
        """Forget all of it, as a benchmark of a first call does."""
        with self.lock:
            self.found.clear()

    def get(self, key: Hashable, find: Callable[[], Any]) -> Any:
        """What is kept under ``key``; found and kept, where there is nothing yet."""
        with self.lock:
            if key in self.found:
                return self.found[key]
        made = find()  # two threads may both find it, which costs time alone
        with self.lock:
            while len(self.found) >= self.most:
                self.found.pop(next(iter(self.found)))
            self.found[key] = made
        return made
