"""Programs of JAX's own less usual parts: sparse arrays, devices, scans of other kinds, loops in training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from others.core import Built, Program, normal

__all__ = ["PROGRAMS"]


def bcoo() -> Built:
    from jax.experimental import sparse

    a = sparse.BCOO.fromdense(jnp.where(jnp.abs(normal(5, 4)) > 0.3, normal(5, 4), 0))
    return lambda x: jnp.tanh(a @ jnp.sin(x)), (normal(4),), 0


def bcoo_data() -> Built:
    """The entries are the argument, their places are not."""
    from jax.experimental import sparse

    places = jnp.array([[0, 0], [1, 2], [2, 1], [2, 2]])

    def product(x: jax.Array, entries: jax.Array) -> jax.Array:
        return sparse.BCOO((jnp.exp(entries), places), shape=(3, 3)) @ x

    return product, (normal(3), normal(4)), 1


def shard_map() -> Built:
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    spec = jax.sharding.PartitionSpec("i")

    def local(x: jax.Array) -> jax.Array:
        return jnp.sin(x) - lax.pmean(x, "i")

    spread = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec)
    return lambda x: spread(jnp.tanh(x)) * 2, (normal(4),), 0


def associative() -> Built:
    def recurrence(x: jax.Array) -> jax.Array:
        def compose(
            one: tuple[jax.Array, jax.Array], other: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array]:
            return one[0] * other[0], other[0] * one[1] + other[1]

        return lax.associative_scan(compose, (jax.nn.sigmoid(x), jnp.sin(x)))[1]

    return recurrence, (normal(6),), 0


def tridiagonal() -> Built:
    """One implicit step of diffusion."""
    lower, upper = -0.4 * jnp.ones(5).at[0].set(0), -0.4 * jnp.ones(5).at[-1].set(0)

    def step(x: jax.Array) -> jax.Array:
        return lax.linalg.tridiagonal_solve(lower, 1.8 * jnp.ones(5), upper, jnp.sin(x)[:, None])[:, 0] ** 2

    return step, (normal(5),), 0


def selective_scan() -> Built:
    """Mamba's: steps, input and read-out matrices depend on the input."""
    a, w = -jnp.exp(normal(3, 2)), normal(3, 3)
    b, c = normal(3, 2, seed=1), normal(3, 2, seed=2)

    def mix(xs: jax.Array) -> jax.Array:
        def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            delta = jax.nn.softplus(w @ x)[:, None]
            h = jnp.exp(delta * a) * h + delta * (x @ b) * x[:, None]
            return h, h @ (x @ c)

        return lax.scan(step, jnp.zeros((3, 2)), xs)[1] + xs

    return mix, (normal(4, 3),), 0


def s5() -> Built:
    """A diagonal state space layer, complex inside, by an associative scan."""
    eigenvalues = jnp.exp(-0.1 - 1j * jnp.arange(1.0, 4.0)).astype(jnp.complex64)
    b = normal(3, 2) + 1j * normal(3, 2, seed=1)
    c = normal(2, 3) + 1j * normal(2, 3, seed=1)

    def layer(u: jax.Array) -> jax.Array:
        def compose(
            one: tuple[jax.Array, jax.Array], other: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array]:
            return one[0] * other[0], other[0] * one[1] + other[1]

        driven = u.astype(jnp.complex64) @ b.T
        states = lax.associative_scan(compose, (jnp.broadcast_to(eigenvalues, driven.shape), driven))[1]
        return jax.nn.gelu((states @ c.T).real) + u

    return layer, (normal(4, 2),), 0


def unrolled_adam() -> Built:
    """Meta-learning: weights after three steps of Adam, as a function of where they start."""
    import optax

    optimizer, xs = optax.adam(0.1), normal(6, 3)
    ys = jnp.sin(xs).sum(1)

    def loss(w: jax.Array) -> jax.Array:
        return jnp.mean((jnp.tanh(xs @ w) - ys) ** 2)

    def learn(w: jax.Array) -> jax.Array:
        state = optimizer.init(w)
        for _ in range(3):
            updates, state = optimizer.update(jax.grad(loss)(w), state)
            w = optax.apply_updates(w, updates)
        return w

    return learn, (normal(3),), 0


def sinkhorn() -> Built:
    """Entropic optimal transport by a ``fori_loop`` of log-domain steps."""

    def plan(cost: jax.Array) -> jax.Array:
        def step(_: int, potentials: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            f, g = potentials
            f = -jax.nn.logsumexp(g - cost, axis=1)
            return f, -jax.nn.logsumexp(f[:, None] - cost, axis=0)

        f, g = lax.fori_loop(0, 4, step, (jnp.zeros(3), jnp.zeros(4)))
        return jnp.exp(f[:, None] + g - cost)

    return plan, (normal(3, 4),), 0


PROGRAMS = (
    Program("jax: BCOO product", "jax", bcoo),
    Program("jax: BCOO entries", "jax", bcoo_data),
    Program("jax: shard_map", "jax", shard_map),
    Program("jax: associative_scan", "jax", associative),
    Program("jax: tridiagonal_solve", "jax", tridiagonal),
    Program("Mamba's selective scan", "jax", selective_scan),
    Program("S5 layer", "jax", s5),
    Program("optax: unrolled Adam", "optax", unrolled_adam),
    Program("Sinkhorn", "jax", sinkhorn),
)
