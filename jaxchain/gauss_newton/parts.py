"""Leaves cut into parts that no two sites share, and biases that belong to the weight before them.

A part is a leaf with some of its sites. Where the sites of a leaf see the same rows and columns it is one part; where each
reads entries of its own, as the gates of one fused weight, each is one. What is quadratic in gradients is then a sum over parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxchain.derivative import vjp
from jaxchain.factored.factors import Factor, Product
from jaxchain.factored.function import Factored, Leaf
from jaxchain.factored.sites import Site
from jaxchain.program.flat import Equation
from jaxchain.program.primitives import Var, dtype_of, is_var, shape_of, size_of
from jaxchain.program.segment import Segment

__all__ = ["bias_of", "number_of", "parts"]


def number_of(function: Factored, part: Leaf) -> int:
    """The number of the leaf that a part is of."""
    return function.sites[part.sites[0]].leaf


def parts(function: Factored, *args: Any) -> tuple[Leaf, ...]:
    """The parts of all leaves that have sites, in order; ``args`` as shapes."""
    found: list[Leaf] = []

    def look(factors: list[Factor]) -> tuple[()]:
        for leaf in filter(lambda leaf: leaf.sites, function.leaves):
            alone = [replace(leaf, sites=(k,)) for k in leaf.sites]
            one = len(alone) == 1 or function.alike(leaf, factors) is not None
            found.extend([leaf] if one or not _share_nothing(function, alone) else alone)
        return ()

    jax.eval_shape(look, function.shapes(*args))
    return tuple(found)


def _share_nothing(function: Factored, parts: Sequence[Leaf]) -> bool:
    """Whether no entry of a leaf is read at two of its sites."""
    with jax.ensure_compile_time_eval():
        read = [_entries_read(function.sites[part.sites[0]]) for part in parts]
    if any(isinstance(entries, Tracer) for entries in read):  # what it is scaled by is not known now
        return False
    return bool(np.all(sum(np.asarray(entries).astype(int) for entries in read) <= 1))


def _entries_read(site: Site) -> jax.Array:
    start = site.layout.parts[0].start
    out, pull = vjp(site.layout, jnp.zeros(shape_of(start), dtype_of(start)))
    return pull(jnp.ones_like(out))[0] != 0


# ------------------------------------------------------------------------------------------------- biases beside weights

DIGITS = 250
"""Marks are counted in digits of this base, which half precision holds exactly."""

MOVES = frozenset("broadcast_in_dim convert_element_type copy expand_dims reshape squeeze transpose".split())
"""What may lie between a product and the bias that is added to it."""


def bias_of(function: Factored, weight: Leaf, factor: Factor) -> Leaf | None:
    """The leaf that is added to what a weight makes, one entry to a column of each block, and is read nowhere else."""
    if not isinstance(factor, Product) or len(weight.sites) != 1:
        return None
    site = function.sites[weight.sites[0]]
    for leaf in function.leaves:
        if len(leaf.sites) == 1 and _follows(function.sites[leaf.sites[0]], site, leaf, factor):
            return leaf
    return None


def _follows(bias: Site, weight: Site, leaf: Leaf, factor: Product) -> bool:
    found, after = weight.found, bias.found
    if bias.kind != "bias" or after.equation is None or after.equation.name not in ("add", "add_any"):
        return False
    same = weight.layout.parts[-1].program is bias.layout.parts[-1].program and weight.layout.rows == bias.layout.rows
    n, _, _, columns = factor.sizes
    if not same or leaf.like.size != n * columns or after.lengths != found.lengths:
        return False
    operands = after.equation.eqn.invars
    other = operands[1 - operands.index(bias.layout.end)]
    moved = _moves(weight, other) if is_var(other) else None
    if moved is None:
        return False
    with jax.ensure_compile_time_eval():
        digits = range(1 + int(np.log(n * columns) / np.log(DIGITS)))
        return all(_marked(bias, weight, moved, leaf.like, factor.sizes, digit) for digit in digits)


def _moves(weight: Site, end: Var) -> Segment | None:
    """From what a weight makes to a variable that is the same, at most moved; ``None`` where it is not."""
    program, start, made = weight.layout.parts[-1].program, weight.found.tap.atom, list[Equation]()
    assert is_var(start)
    out = end
    while out is not start:
        maker = program.makers.get(out)
        if maker is None or maker.name not in MOVES or len(maker.reads) != 1:
            return None
        made.append(maker)
        (before,) = maker.reads
        if size_of(before) != size_of(out):
            return None
        out = before
    return Segment(tuple(reversed(made)), (start,), (end,), program)


def _marked(
    bias: Site, weight: Site, moved: Segment, like: jax.ShapeDtypeStruct, sizes: Sequence[int], digit: int
) -> bool:
    """Whether marks on the bias's entries, taken for cotangents of what it is added to, come out as those of columns."""
    found, (n, _, _, columns) = weight.found, sizes
    marks = np.arange(n * columns) // DIGITS**digit % DIGITS + 1.0
    operand = bias.layout(jnp.asarray(marks.reshape(like.shape), like.dtype))
    if isinstance(operand, Tracer):
        return False
    # The axes of loops over rows are in front; a step of the others has what all have.
    loops = [length if by_row else 1 for length, by_row in zip(found.lengths, weight.layout.rows, strict=True)]
    inner = operand.shape[sum(weight.layout.rows) :]
    delta = jnp.broadcast_to(operand.reshape(*loops, *inner), (*found.lengths, *shape_of(moved.outputs[0])))
    start = jnp.zeros(shape_of(moved.inputs[0]), dtype_of(moved.inputs[0]))
    out, back = vjp(lambda value: moved.call(value)[0], start)

    def pull(delta: jax.Array) -> jax.Array:
        return back(delta.astype(out.dtype))[0]

    for _ in found.lengths:
        pull = jax.vmap(pull)
    values = [jnp.zeros((*found.lengths, *shape_of(slot.atom)), dtype_of(slot.atom)) for slot in found.reads]
    made = weight.factors(values, pull(delta))
    return isinstance(made, Product) and bool(jnp.all(made.right == marks.reshape(n, 1, columns)))
