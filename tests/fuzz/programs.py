"""Programs made from a number: calls in loops in branches, rules that are no derivatives, linear algebra, indices, casts.

A program is a list of steps over the values before, each with the text that a failure prints. Every random choice is
made while it is built, along with the shapes, so that the function itself is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Value = Any
Fn = Callable[..., Value]


@dataclass(frozen=True)
class Step:
    """One operation on values made before; ``inside`` are the lines of the blocks that it holds."""

    text: str
    fn: Fn
    reads: tuple[int, ...]
    inside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """Steps over some first values; its result is the last value."""

    inputs: int
    steps: tuple[Step, ...]

    def values(self, *given: Value) -> list[Value]:
        values = list(given)
        for step in self.steps:
            values.append(step.fn(*(values[k] for k in step.reads)))
        return values

    def __call__(self, *given: Value) -> Value:
        return self.values(*given)[-1]

    def lines(self) -> list[str]:
        lines = []
        for number, step in enumerate(self.steps, start=self.inputs):
            lines.append(f"v{number} = {step.text.format(*(f'v{k}' for k in step.reads))}")
            lines += [f"    {line}" for line in step.inside]
        return lines


@dataclass(frozen=True)
class Program:
    """A function ``fun(w, x)`` (with ``aux``: of the pair), its arguments, and what it is as text."""

    seed: int
    args: tuple[Any, Any]
    block: Block
    results: tuple[Any, ...]
    kinds: frozenset[str]
    aux: bool

    def __call__(self, w: jax.Array, x: Any) -> Any:
        leaves = jax.tree.leaves(x)
        values = self.block.values(w, *leaves)
        out = tuple(_picked(result, values) for result in self.results)
        return out[0] if len(out) == 1 else out

    def with_aux(self, w: jax.Array, x: Any) -> Any:
        """The function, and beside its result some that nothing is said of."""
        return self(w, x), {"aux": [leaf * 2 for leaf in jax.tree.leaves(x)], "n": jnp.arange(2), "none": None}

    def __str__(self) -> str:
        head = f"program {self.seed}: v0 = w, {jax.tree.structure(self.args[1])} of " + ", ".join(
            f"v{k} {jax.typeof(leaf).str_short()}" for k, leaf in enumerate(jax.tree.leaves(self.args[1]), start=1)
        )
        return "\n".join([head, *self.block.lines(), f"return {self.results}"])


def _picked(result: Any, values: Sequence[Value]) -> Any:
    if isinstance(result, int):
        return values[result]
    return {"constant": lambda: jnp.arange(2.0), "number": lambda: 3.0, "none": lambda: None}[result]()


# ------------------------------------------------------------------------------------------- rules that are no derivatives


@jax.custom_jvp
def tripled(x: Value) -> Value:
    return jnp.tanh(x)


tripled.defjvp(lambda primals, tangents: (jnp.tanh(primals[0]), 3 * tangents[0]))


@jax.custom_jvp
def straight(x: Value) -> Value:
    """Straight through: its rule's own value has no derivative, so that a second derivative is not its own's."""
    return jnp.floor(4 * x) / 4


straight.defjvp(lambda primals, tangents: (jnp.floor(4 * primals[0]) / 4, tangents[0]))


@jax.custom_jvp
def elsewhere(x: Value) -> Value:
    """Its rule says another value, too."""
    return jnp.sin(x)


elsewhere.defjvp(lambda primals, tangents: (jnp.sin(primals[0]) + 0.125, primals[0] * tangents[0]))


@jax.custom_vjp
def flipped(x: Value) -> Value:
    return jnp.sin(x)


flipped.defvjp(lambda x: (jnp.sin(x), x), lambda x, cotangent: (-cotangent * (1 + x * x),))


@jax.custom_vjp
def clipped(x: Value, bound: Value) -> Value:
    return x * bound


clipped.defvjp(lambda x, b: (x * b, b), lambda b, cotangent: (jnp.clip(cotangent, -1, 1) * b, jnp.zeros_like(b)))

# --------------------------------------------------------------------------------------------------------------- steps


def square_matrix(x: Value) -> Value:
    """A well-conditioned 3 × 3 matrix of whatever there is."""
    return 2 * jnp.eye(3, dtype=x.dtype) + 0.4 * jnp.tanh(fitted(x, (3, 3)))


def definite(x: Value) -> Value:
    a = square_matrix(x)
    return a @ a.T + jnp.eye(3, dtype=x.dtype)


def fitted(x: Value, shape: tuple[int, ...]) -> Value:
    """The numbers of ``x``, as often as it takes to fill a shape; of none, zeros."""
    size = int(np.prod(shape))
    flat = x.reshape(-1)
    return (jnp.resize(flat, size) if flat.size else jnp.zeros(size, x.dtype)).reshape(shape)


ELEMENTWISE: dict[str, Fn] = {
    "sin({})": jnp.sin,
    "tanh({})": jnp.tanh,
    "exp(-{0}²)": lambda x: jnp.exp(-x * x),
    "√(1 + {0}²)": lambda x: jnp.sqrt(1 + x * x),
    "relu({})": jax.nn.relu,
    "gelu({})": jax.nn.gelu,
    "logistic({})": jax.nn.sigmoid,
    "atan2({0}, 2)": lambda x: jnp.arctan2(x, jnp.full_like(x, 2)),
    "where({0} > 0, {0}, {0}/2)": lambda x: jnp.where(x > 0, x, x / 2),
    "{} + 1": lambda x: x + 1,
    "-{} × 1.5": lambda x: -1.5 * x,
    "stop_gradient({0}) × {0}": lambda x: lax.stop_gradient(x) * x,
    "clip({}, -½, ½)": lambda x: jnp.clip(x, -0.5, 0.5),
    "{}³": lambda x: x**3,
}
RULES: dict[str, Fn] = {"tripled({})": tripled, "straight({})": straight, "elsewhere({})": elsewhere}
BACKWARD_RULES: dict[str, Fn] = {
    "flipped({})": flipped,
    "clipped({}, ½)": lambda x: clipped(x, jnp.asarray(0.5, x.dtype)),
}
LINALG: dict[str, Fn] = {
    "solve(M({0}), v({0}))": lambda x: jnp.linalg.solve(square_matrix(x), fitted(x, (3,))),
    "cholesky(P({}))": lambda x: jnp.linalg.cholesky(definite(x)),
    "triangular({})": lambda x: lax.linalg.triangular_solve(
        square_matrix(x), fitted(x, (3, 2)), left_side=True, lower=True
    ),
    "det(M({}))": lambda x: jnp.linalg.det(square_matrix(x)),
    "inv(M({}))": lambda x: jnp.linalg.inv(square_matrix(x)),
    "eigvalsh(P({}))": lambda x: jnp.linalg.eigvalsh(definite(x) + jnp.diag(jnp.arange(0, 30, 10, dtype=x.dtype))),
    "qr(M({}))": lambda x: jnp.linalg.qr(square_matrix(x))[1],
    "{0} ⊗ {0}": lambda x: jnp.outer(fitted(x, (2,)), fitted(x, (3,))),
    "M({0}) v({0})": lambda x: square_matrix(x) @ fitted(x, (3,)),
    "tridiagonal({})": lambda x: lax.linalg.tridiagonal_solve(
        *(jnp.full(3, c, x.dtype) for c in (0.5, 4, 0.5)), fitted(x, (3, 2))
    ),
}
ORDER: dict[str, Fn] = {
    "sort({})": lambda x: jnp.sort(x.reshape(-1)),
    "top_k({}, 2)": lambda x: lax.top_k(fitted(x, (4,)), 2)[0],
    "{0}[argsort(-{0})]": lambda x: jnp.take(x.reshape(-1), jnp.argsort(-x.reshape(-1))),
    "cumsum({})": lambda x: jnp.cumsum(x.reshape(-1)),
    "cumprod({})": lambda x: jnp.cumprod(x.reshape(-1)),
    "cummax({})": lambda x: lax.cummax(fitted(x, (4,))),
    "cumlogsumexp({})": lambda x: lax.cumlogsumexp(fitted(x, (3, 2)), axis=1, reverse=True),
    "associative_scan(×, {})": lambda x: lax.associative_scan(jnp.multiply, fitted(x, (5,))),
    "max({0}) × {0}": lambda x: jnp.max(x, initial=-5) * x,
    "softmax({})": lambda x: jax.nn.softmax(fitted(x, (4,))),
    "mean, var({})": lambda x: (fitted(x, (4,)) - x.sum()) / jnp.sqrt(1 + jnp.var(fitted(x, (4,)))),
}
INDEX: dict[str, Fn] = {
    "{}[[2, 0, 2]]": lambda x: fitted(x, (4,))[jnp.array([2, 0, 2])],
    "{}[::-1]": lambda x: x.reshape(-1)[::-1],
    "{}[:0]": lambda x: x.reshape(-1)[:0],
    "dynamic_slice({0}, argmax({0}))": lambda x: lax.dynamic_slice(
        fitted(x, (5,)), (jnp.argmax(fitted(x, (5,))),), (3,)
    ),
    # What is written depends on those places alone: XLA on the CPU reads what it has written (openxla/xla 49176).
    "update({0}, 2 {0}[1:3], 1)": lambda x: lax.dynamic_update_slice(fitted(x, (4,)), 2 * fitted(x, (4,))[1:3], (1,)),
    "{}.at[1].add(2)": lambda x: fitted(x, (3,)).at[1].add(2.0),
    "{}.at[1].multiply(2)": lambda x: fitted(x, (3,)).at[1].multiply(2.0),
    "{0}.at[[0, 0, 2]].add({0}²)": lambda x: fitted(x, (3,)).at[jnp.array([0, 0, 2])].add(fitted(x, (3,)) ** 2),
    "{0}.at[2].set(sin {0})": lambda x: fitted(x, (3,)).at[2].set(jnp.sin(x.sum())),
    "{}.at[[1, 0]].max(½)": lambda x: fitted(x, (3,)).at[jnp.array([1, 0])].max(0.5),
    "pad({})": lambda x: jnp.pad(x.reshape(-1), (1, 2), constant_values=0.5),
    "concatenate({0}, {0})": lambda x: jnp.concatenate([x.reshape(-1), fitted(x, (2,)) * 3]),
    "roll({})": lambda x: jnp.roll(fitted(x, (2, 2)), 1, axis=1),
    "transpose({})": lambda x: fitted(x, (2, 3)).T,
    "squeeze, split({})": lambda x: jnp.split(fitted(x, (4,)), 2)[1],
    "one_hot(argmax({0})) × {0}": lambda x: (
        jax.nn.one_hot(jnp.argmax(fitted(x, (3,))), 3, dtype=x.dtype) * fitted(x, (3,))
    ),
}
COMPLEX: dict[str, Fn] = {
    "re ifft(fft({}) i)": lambda x: jnp.fft.ifft(jnp.fft.fft(fitted(x, (4,))) * (1 + 0.5j)).real,
    "|exp(i {})|": lambda x: jnp.abs(jnp.exp(1j * x) + x),
    "im ({} + i)³": lambda x: jnp.imag((x + 1j) ** 3),
    "irfft(rfft({}))": lambda x: jnp.fft.irfft(jnp.fft.rfft(fitted(x, (4,))) ** 2, 4).astype(x.dtype),
    "re conj(z) z², z = {0} + 2i{0}": lambda x: jnp.real(jnp.conj(x + 2j * x) * (x + 2j * x) ** 2),
    "angle({} + i)": lambda x: jnp.angle(x + 1j),
}
CAST: dict[str, Fn] = {
    "f32({})": lambda x: jnp.sin(x.astype(jnp.float32)).astype(x.dtype),
    "{0} + int(10 {0}) / 10": lambda x: x + (10 * x).astype(jnp.int32).astype(x.dtype) / 10,
    "{0} × ({0} > 0)": lambda x: x * (x > 0).astype(x.dtype),
    "frexp({})": lambda x: x * jnp.frexp(x)[1].astype(x.dtype),
    "bits({})": lambda x: x + lax.population_count(jnp.abs(10 * x).astype(jnp.int32)).astype(x.dtype),
}
LOW: dict[str, Fn] = {
    "bf16({})": lambda x: x.astype(jnp.bfloat16).astype(x.dtype),
    "f16({})": lambda x: (jnp.sin(x.astype(jnp.float16)) * 2).astype(x.dtype),
}


def shown(x: Value) -> Value:
    """Its value goes to a debugger, which says nothing of it."""
    jax.debug.callback(lambda _: None, x)
    return x


SHOWN: dict[str, Fn] = {"shown({})": shown, "shown(sin {})": lambda x: shown(jnp.sin(x)) + x}
BINARY: dict[str, Fn] = {
    "{} + {}": lambda x, y: x + fitted(y, x.shape),
    "{} × {}": lambda x, y: x * fitted(y, x.shape),
    "{} - sin {}": lambda x, y: x - jnp.sin(fitted(y, x.shape)),
    "⟨{}, {}⟩": lambda x, y: jnp.vdot(x, fitted(y, x.shape)),
    "convolve({}, {})": lambda x, y: jnp.convolve(fitted(x, (4,)), fitted(y, (2,)), mode="same"),
    "maximum({}, {})": lambda x, y: jnp.maximum(x, fitted(y, x.shape)),
    "{} / (2 + cosh {})": lambda x, y: x / (2 + jnp.cosh(jnp.clip(fitted(y, x.shape), -2, 2))),
    "einsum({}, {})": lambda x, y: jnp.einsum("ij,jk->ki", fitted(x, (2, 3)), fitted(y, (3, 2))),
    "W {} + {}": lambda x, y: fitted(y, (3, 3)) @ fitted(x, (3,)),
}
TABLES: dict[str, tuple[dict[str, Fn], int]] = {
    "elementwise": (ELEMENTWISE, 6),
    "rule": (RULES, 2),
    "backward rule": (BACKWARD_RULES, 1),
    "linalg": (LINALG, 3),
    "order": (ORDER, 3),
    "index": (INDEX, 4),
    "complex": (COMPLEX, 2),
    "cast": (CAST, 2),
    "low": (LOW, 1),
    "shown": (SHOWN, 1),
    "binary": (BINARY, 6),
}
"""Kinds of steps without blocks, and how often each is drawn."""

# -------------------------------------------------------------------------------------------------- steps that hold blocks


def as_body(block: Block) -> Fn:
    """A block from a value to one of the same shape, kept small so that loops do not run away."""
    return lambda x, *others: jnp.tanh(fitted(block(x, *others), x.shape)).astype(x.dtype)


def with_jit(body: Fn) -> Fn:
    return jax.jit(body)


def with_checkpoint(body: Fn) -> Fn:
    return jax.checkpoint(body)


def with_scope(body: Fn) -> Fn:
    def scoped(x: Value) -> Value:
        with jax.named_scope("block"):
            return body(x)

    return scoped


def in_scan(body: Fn) -> Fn:
    return lambda x: lax.scan(lambda c, _: (body(c), None), x, None, length=3)[0]


def in_rows(body: Fn) -> Fn:
    """A scan whose steps read rows of the value itself, and whose stacked results are what counts."""

    def run(x: Value) -> Value:
        rows = fitted(x, (3, 2))
        return lax.scan(lambda c, row: (c + body(row).sum(), c * row), x.sum(), rows, reverse=True)[1]

    return run


def in_stack(body: Fn) -> Fn:
    """A scan of which both the carry and the stacked results are used."""

    def run(x: Value) -> Value:
        carry, stacked = lax.scan(lambda c, k: (body(c) * k, c.sum()), x, jnp.arange(1, 4, dtype=x.dtype))
        return carry * stacked.mean()

    return run


def in_pair(body: Fn) -> Fn:
    """A loop that carries two values, one of them a time that no input moves, and stacks what is dead."""

    def run(x: Value) -> Value:
        def step(carry: Any, _: Any) -> Any:
            (c, t), k = carry, body(carry[0])
            return (k + t * c / 8, t + 1), (k, t)

        return lax.scan(step, (x, jnp.zeros((), x.dtype)), None, length=2)[0][0]

    return run


def in_fori(body: Fn) -> Fn:
    return lambda x: lax.fori_loop(0, 3, lambda k, c: body(c) + k.astype(c.dtype) * c / 4, x)


def in_while(body: Fn) -> Fn:
    """A while loop of which only a person can tell how often it runs."""
    return lambda x: lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, body(c[1])), (0, x))[1]


def in_cond(body: Fn) -> Fn:
    return lambda x: lax.cond(x.sum() > 0.2, body, lambda x: x * 2, x)


def in_switch(body: Fn) -> Fn:
    return lambda x: lax.switch((10 * x.sum()).astype(jnp.int32) % 3, [body, jnp.sin, lambda x: x], x)


def in_map(body: Fn) -> Fn:
    return lambda x: lax.map(body, fitted(x, (2, 3)))


def in_vmap(body: Fn) -> Fn:
    return lambda x: jax.vmap(body)(fitted(x, (2, 3)))


def in_derivative(body: Fn) -> Fn:
    return lambda x: jax.jvp(body, (x,), (jnp.ones_like(x),))[1]


BLOCKS: dict[str, Callable[[Fn], Fn]] = {
    "jit": with_jit,
    "checkpoint": with_checkpoint,
    "scope": with_scope,
    "scan": in_scan,
    "rows": in_rows,
    "stack": in_stack,
    "pair": in_pair,
    "fori": in_fori,
    "while": in_while,
    "cond": in_cond,
    "switch": in_switch,
    "map": in_map,
    "vmap": in_vmap,
    "derivative": in_derivative,
}
RARE = ("while", "backward rule", "low", "derivative", "elsewhere({})")
"""Without which a program has every mode, at full precision: most programs go without."""

# ------------------------------------------------------------------------------------------------------ making programs


class _Maker:
    """Draws steps, knowing the shapes of the values before."""

    def __init__(self, rng: np.random.Generator, allowed: frozenset[str]) -> None:
        self.rng, self.allowed, self.kinds = rng, allowed, set[str]()

    def pick(self, items: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
        chances = None if weights is None else np.array(weights) / sum(weights)
        return items[int(self.rng.choice(len(items), p=chances))]

    def block(self, given: Sequence[Any], steps: int, depth: int) -> Block:
        known, made = list(given), list[Step]()
        for _ in range(steps):
            step = self.step(len(known), known, depth)
            known.append(jax.eval_shape(step.fn, *(known[k] for k in step.reads)))
            made.append(step)
        return Block(len(given), tuple(made))

    def step(self, count: int, known: Sequence[Any], depth: int) -> Step:
        # The first value, a program's weights or a block's own input, is seldom what a step begins with.
        recent = max(min(1, count - 1), count - int(self.pick([1, 1, 2, 4, 9])))
        first, second = (int(self.rng.integers(recent, count)), int(self.rng.integers(0, count)))
        if depth and self.rng.random() < 0.3:
            kind = self.pick([name for name in BLOCKS if name not in RARE or name in self.allowed])
            like = jax.ShapeDtypeStruct(
                {"rows": (2,), "map": (3,), "vmap": (3,)}.get(kind, known[first].shape), known[first].dtype
            )
            if kind == "derivative":  # within, JAX differentiates: what has no forward mode cannot be there
                inner = _Maker(self.rng, self.allowed - {"backward rule"})
                block = inner.block([like], int(self.rng.integers(1, 3)), depth - 1)
                self.kinds |= inner.kinds
            else:
                block = self.block([like], int(self.rng.integers(1, 3)), depth - 1)
            self.kinds.add(kind)
            return Step(kind + "({})", BLOCKS[kind](as_body(block)), (first,), tuple(block.lines()))
        kinds = [kind for kind in TABLES if kind not in RARE or kind in self.allowed]
        kind = self.pick(kinds, [TABLES[kind][1] for kind in kinds])
        text = self.pick([text for text in TABLES[kind][0] if text not in RARE or text in self.allowed])
        self.kinds |= {kind, text}
        reads = (first, second) if kind == "binary" else (first,)
        return Step(text, TABLES[kind][0][text], reads)


def program(seed: int) -> Program:
    """The program of a seed: float64 where that is enabled and the seed is no multiple of five, else float32."""
    rng = np.random.default_rng(seed)
    allowed = frozenset(kind for kind in RARE if rng.random() < 0.12)
    maker = _Maker(rng, allowed)
    dtype = jnp.float32 if seed % 5 == 0 else jnp.result_type(float)
    x = jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), dtype),
        maker.pick(INPUTS, [4, 2, 1, 1, 2, 1, 1]),
        is_leaf=lambda node: isinstance(node, tuple),
    )
    w = jnp.asarray(rng.normal(size=4), dtype)
    leaves = [w, *jax.tree.leaves(x)]
    block = maker.block([jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves], int(rng.integers(2, 7)), 2)
    last = len(leaves) + len(block.steps) - 1
    results: list[Any] = [last]
    for extra in ("input", "constant", "none", "number", "again", "other"):
        if rng.random() < 0.1:
            other = int(rng.integers(1, last + 1))
            results.insert(
                int(rng.integers(0, len(results) + 1)), {"input": 1, "again": last, "other": other}.get(extra, extra)
            )
    return Program(seed, (w, x), block, tuple(results), frozenset(maker.kinds), bool(rng.random() < 0.2))


INPUTS: list[Any] = [(3,), (2, 2), (), (1,), {"a": (3,), "b": (2,)}, [(2,), None, ()], {"empty": (0, 2), "x": (3,)}]
"""Shapes of the chain input; a tuple is a shape."""
