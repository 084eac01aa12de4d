"""What each way of each leaf's part of a kernel takes, counted from shapes before anything runs.

Multiplied out and contracted; by products of factors, whose δ · δ′ leaves share that have the same δ, as weights and
biases of a layer have; or by pushing the other sample's rows forward, of which one tangent serves many leaves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxchain.cost.count import summed
from jaxchain.cost.linear import linear_work
from jaxchain.derivative import jvp
from jaxchain.errors import REFUSALS, refusal
from jaxchain.factored.factors import Factor, Picked, Product, Whole
from jaxchain.kernels.basis import Basis, Piece
from jaxchain.kernels.pairing import OUTPUTS, Order, Outputs, lettered, order_of, overlap_cost, work

__all__ = ["Block", "Prices", "Term"]


@dataclass(frozen=True)
class Block:
    """How many pairs of samples there are, and how often a sample's derivative is made for them.

    Attributes
    ----------
    rows, columns
        Samples of each side.
    chunk
        As many at once.
    symmetric
        Whether both sides are the same samples.
    """

    rows: int
    columns: int
    chunk: int | None
    symmetric: bool

    @property
    def at_once(self) -> bool:
        """Whether all samples fit into one chunk."""
        return self.chunk is None or self.chunk >= max(self.rows, self.columns)

    @property
    def ones(self) -> int:
        """Derivatives of samples of the first side; where both are one, its are the other's."""
        return 0 if self.symmetric and self.at_once else self.rows

    @property
    def others(self) -> int:
        """The second side's are made anew for every chunk of the first."""
        return self.columns * (1 if self.at_once or not self.chunk else math.ceil(self.rows / self.chunk))


@dataclass(frozen=True)
class Term:
    """One piece of a leaf against another, by number."""

    leaf: int
    one: int
    other: int


@dataclass(frozen=True, eq=False)
class Prices:
    """What every way of every leaf takes, in floating-point operations.

    Attributes
    ----------
    basis
        The function.
    block
        How many samples.
    outputs
        Of the block of each pair.
    """

    basis: Basis
    block: Block
    outputs: Outputs

    @cached_property
    def used(self) -> tuple[int, ...]:
        """The leaves that the result depends on."""
        return tuple(n for n, leaf in enumerate(self.basis.function.leaves) if leaf.sites)

    @property
    def sizes(self) -> dict[str, int]:
        """Lengths of the axes that all leaves have."""
        m = self.basis.space.size
        return {"p": m, "q": m, "b": self.block.rows, "c": self.block.columns}

    @cached_property
    def _read(self) -> dict[int, list[tuple[Piece, Piece]]]:
        """Each thin leaf's pieces as shapes, and which of the two factors depend on the sample."""
        basis = self.basis

        read = basis.deltas.then(partial(basis.pieces, basis.thin))
        shapes, depends = read.unflatten(read.shapes), read.unflatten([axis is not None for axis in read.axes])
        return {
            n: list(zip(*both, strict=True))
            for n, both in zip(basis.thin, zip(shapes, depends, strict=True), strict=True)
        }

    # ------------------------------------------------------------------------------------------------------ products

    def terms(self, leaf: int) -> list[Term]:
        """All pairs of a leaf's pieces."""
        count = range(len(self._read[leaf]))
        return [Term(leaf, one, other) for one in count for other in count]

    @cached_property
    def _keys(self) -> dict[int, Any]:
        """Of the leaves that may share their δ."""
        return {leaf: key for leaf in self.used if (key := self.basis.key(leaf)) is not None}

    def key(self, term: Term) -> Any:
        """Equal for terms that share their δ and δ′."""
        return self._keys.get(term.leaf, term)

    def _sizes(self, term: Term) -> dict[str, int]:
        n, t, i, o = self._read[term.leaf][term.one][0].sizes
        _, s, _, _ = self._read[term.leaf][term.other][0].sizes
        return {**self.sizes, "n": n, "t": t, "s": s, "i": i, "o": o}

    def overlap(self, term: Term) -> float:
        """Of a term's inner products of x."""
        (one, in_b), (other, in_c) = (self._read[term.leaf][k] for k in (term.one, term.other))
        depends = "b" if in_b.left else "", "c" if in_c.left else ""
        return overlap_cost(one, other, self.outputs, self._sizes(term), *depends)

    def order(self, terms: Sequence[Term]) -> Order:
        """In which δ and δ′ are multiplied by what terms that share them have added up."""
        term = terms[0]
        (one, in_b), (other, in_c) = (self._read[term.leaf][k] for k in (term.one, term.other))
        left, right = lettered(one, own=True, outputs=self.outputs)
        left_, right_ = lettered(other, own=False, outputs=self.outputs)
        shared = "".join(dict.fromkeys(left + left_ + "bc")).replace("i", "")
        letters = ("b" if in_b.right else "", "c" if in_c.right else "")
        return order_of(shared, right + letters[0], right_ + letters[1], self.outputs, self._sizes(term))

    @cached_property
    def orders(self) -> dict[Any, Order]:
        """Of every group that there may be."""
        terms = [term for leaf in self.basis.thin for term in self.terms(leaf)]
        return {self.key(term): self.order([term]) for term in reversed(terms)}

    @cached_property
    def overlaps(self) -> dict[int, float]:
        """Of every thin leaf."""
        return {leaf: sum(map(self.overlap, self.terms(leaf))) for leaf in self.basis.thin}

    def products(self, leaf: int) -> float:
        """A leaf by products of its factors, alone; infinite where it has none."""
        if leaf not in self.basis.thin:
            return math.inf
        return self.overlaps[leaf] + sum(self.orders[key].cost for key in set(map(self.key, self.terms(leaf))))

    # --------------------------------------------------------------------------------- multiplied out, or pushed forward

    def sharing(self, leaves: Sequence[int]) -> list[list[int]]:
        """Leaves, those together that share their δ."""
        found: dict[Any, list[int]] = {}
        for leaf in leaves:
            found.setdefault(self._keys.get(leaf, leaf), []).append(leaf)
        return list(found.values())

    @cached_property
    def _factors(self) -> list[Any]:
        return jax.eval_shape(self.basis.function.factors, *self.basis.one_delta)

    def making(self, leaf: int) -> float:
        """One sample's derivative of a leaf, multiplied out."""
        return self.basis.space.size * sum(map(self._making, self._sites(leaf)))

    def _sites(self, leaf: int) -> list[Any]:
        return [self._factors[k] for k in self.basis.function.leaves[leaf].sites]

    @staticmethod
    def _making(factor: Factor) -> float:
        """One output's, at one site."""
        match factor:
            case Product():
                n, t, i, o = factor.sizes
                return summed(n * i * o, t)
            case Picked():
                return float(math.prod(factor.right.shape))
            case Whole():
                return 0.0

    @cached_property
    def contractions(self) -> dict[int, float]:
        """Every leaf multiplied out and contracted."""
        return {leaf: self._contraction(leaf) for leaf in self.used}

    def _contraction(self, leaf: int) -> float:
        like = self.basis.function.leaves[leaf].like
        k = math.prod(like.shape) * (2 if jnp.issubdtype(like.dtype, jnp.complexfloating) else 1)
        q, out = OUTPUTS[self.outputs]
        return (self.block.ones + self.block.others) * self.making(leaf) + work(
            f"bpkc{q}", out + "bc", {**self.sizes, "k": k}
        )

    def site_tangent(self, leaf: int) -> float:
        """The least that one tangent takes of a leaf: what its sites themselves do."""
        sizes = [factor.sizes for factor in self._sites(leaf) if isinstance(factor, Product)]
        return float(sum(2 * math.prod(each) for each in sizes))

    @property
    def tangents(self) -> int:
        """How many are pushed in all."""
        return self.block.rows * self.block.columns * self.basis.space.size

    @cached_property
    def _pushed(self) -> tuple[Any, list[Any]] | None:
        """The program of a tangent of all leaves, and what it reads of each; ``None``: there is none."""
        basis = self.basis

        def pushed(params: Any, x: Any, tangents: Any) -> Any:
            return jvp(lambda given: basis.fun(given, x), params, tangents)[1]

        try:
            closed = jax.make_jaxpr(pushed)(basis.params, basis.x, basis.params)
        except REFUSALS as error:
            refusal(error)
            return None
        count = len(basis.function.leaves)
        return closed.jaxpr, closed.jaxpr.invars[-count:]

    def vectors(self, leaves: Sequence[int]) -> float:
        """Some leaves together, the other sample's rows pushed forward."""
        if self._pushed is None:
            return math.inf
        jaxpr, tangents = self._pushed
        each = linear_work(jaxpr, [tangents[leaf] for leaf in leaves]).tangent
        return self.tangents * each + self.block.others * sum(map(self.making, leaves)) - self.saved(leaves)

    def saved(self, leaves: Sequence[int]) -> float:
        """What need not be done on the first side where all leaves are pushed forward: its backward passes."""
        return self.block.ones * self.basis.work[0] if set(leaves) == set(self.used) else 0.0

    @property
    def evaluation(self) -> float:
        """The function and its backward passes, of all samples of both sides."""
        of_sample, once = self.basis.work
        return (self.block.ones + self.block.others) * of_sample + once
