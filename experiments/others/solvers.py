"""Programs that solve: linear systems, roots, least squares, ordinary differential equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from others.core import Built, Program, normal

__all__ = ["PROGRAMS"]


def matrix(size: int) -> jax.Array:
    """A well-conditioned one."""
    return normal(size, size) / 2 + 2 * jnp.eye(size)


def lineax_constant() -> Built:
    """The matrix is a constant of the program: its rule forbids a tangent there."""
    import lineax as lx

    a = matrix(4)
    return lambda b: jnp.tanh(lx.linear_solve(lx.MatrixLinearOperator(a), jnp.sin(b)).value), (normal(4),), 0


def lineax_argument() -> Built:
    import lineax as lx

    def solve(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.tanh(lx.linear_solve(lx.MatrixLinearOperator(a), b).value)

    return solve, (matrix(3), normal(3)), 0


def lineax_cg() -> Built:
    import lineax as lx

    a = matrix(4) @ matrix(4).T
    operator = lx.MatrixLinearOperator(a, lx.positive_semidefinite_tag)

    def solve(b: jax.Array) -> jax.Array:
        return jnp.sin(lx.linear_solve(operator, b**2 + b, lx.CG(rtol=1e-6, atol=1e-6), throw=False).value)

    return solve, (normal(4),), 0


def lineax_tridiagonal() -> Built:
    import lineax as lx

    def solve(diagonal: jax.Array, b: jax.Array) -> jax.Array:
        operator = lx.TridiagonalLinearOperator(3 + diagonal, jnp.ones(4), -jnp.ones(4))
        return lx.linear_solve(operator, jnp.tanh(b)).value * b

    return solve, (normal(5), normal(5, seed=1)), 1


def lineax_least_squares() -> Built:
    """A tall matrix, by QR."""
    import lineax as lx

    a = jnp.concatenate([matrix(3), normal(2, 3)])
    return lambda b: lx.linear_solve(lx.MatrixLinearOperator(a), jnp.exp(b), lx.QR()).value, (normal(5),), 0


def optimistix_root() -> Built:
    import optimistix as optx

    def root(x: jax.Array) -> jax.Array:
        found = optx.root_find(lambda y, x: y + jnp.tanh(y) / 2 - x, optx.Newton(1e-6, 1e-6), jnp.zeros(3), args=x)
        return jnp.sin(found.value)

    return root, (normal(3),), 0


def optimistix_least_squares() -> Built:
    import optimistix as optx

    design = jnp.concatenate([jnp.eye(2), normal(2, 2)])

    def fit(targets: jax.Array) -> jax.Array:
        def residuals(w: jax.Array, targets: jax.Array) -> jax.Array:
            return jnp.sinh(design @ w) - targets

        return optx.least_squares(residuals, optx.LevenbergMarquardt(1e-6, 1e-6), jnp.zeros(2), args=targets).value ** 2

    return fit, (normal(4),), 0


def optimistix_fixed_point() -> Built:
    """A deep equilibrium layer."""
    import optimistix as optx

    w = normal(3, 3) / 2

    def layer(x: jax.Array) -> jax.Array:
        def body(y: jax.Array, x: jax.Array) -> jax.Array:
            return jnp.tanh(w @ y + x)

        return optx.fixed_point(body, optx.FixedPointIteration(1e-6, 1e-6), jnp.zeros(3), args=x).value

    return layer, (normal(3),), 0


def optimistix_minimise() -> Built:
    import optimistix as optx

    def least(x: jax.Array) -> jax.Array:
        def cost(y: jax.Array, x: jax.Array) -> jax.Array:
            return jnp.sum((y - x) ** 2 + 0.1 * y**4)

        return optx.minimise(cost, optx.BFGS(1e-6, 1e-6), jnp.zeros(2), args=x).value

    return least, (normal(2),), 0


def jaxopt_implicit() -> Built:
    """Ridge regression by gradient descent, differentiated implicitly in the penalty and the targets."""
    import jaxopt

    design = jnp.concatenate([jnp.eye(2), normal(2, 2)])

    def cost(w: jax.Array, targets: jax.Array) -> jax.Array:
        return jnp.mean((design @ w - targets) ** 2) + 0.1 * jnp.sum(w**2)

    def ridge(targets: jax.Array) -> jax.Array:
        return jaxopt.GradientDescent(cost, maxiter=200, tol=1e-6).run(jnp.zeros(2), targets=targets).params

    return ridge, (normal(4),), 0


def pendulum(t: Any, y: jax.Array, args: Any) -> jax.Array:  # noqa: ARG001  # the signature that diffrax asks for
    return jnp.stack([y[1], -jnp.sin(y[0]) - 0.1 * y[1]])


def diffrax_solve(adjoint: str | None = None, adaptive: bool = False, save: bool = False) -> Callable[[], Built]:
    """A damped pendulum, by Dormand and Prince's or Tsitouras' method."""

    def build() -> Built:
        import diffrax as dfx

        steps = dfx.PIDController(rtol=1e-3, atol=1e-4) if adaptive else dfx.ConstantStepSize()
        kept = dfx.SaveAt(ts=jnp.array([0.1, 0.2, 0.3])) if save else dfx.SaveAt(t1=True)
        more = {} if adjoint is None else {"adjoint": getattr(dfx, adjoint)()}

        def solve(y: jax.Array) -> jax.Array:
            solved = dfx.diffeqsolve(
                dfx.ODETerm(pendulum),
                dfx.Tsit5(),
                0.0,
                0.3,
                0.1,
                y,
                stepsize_controller=steps,
                saveat=kept,
                max_steps=16,
                **more,
            )
            return solved.ys if save else solved.ys[0]

        return solve, (normal(2),), 0

    return build


def diffrax_neural() -> Built:
    """A neural ODE: the field is an Equinox MLP, whose weights are an argument."""
    import diffrax as dfx
    import equinox as eqx

    mlp = eqx.nn.MLP(2, 2, 4, 1, activation=jnp.tanh, key=jax.random.key(0))
    params, static = eqx.partition(mlp, eqx.is_array)

    def solve(params: Any, y: jax.Array) -> jax.Array:
        term = dfx.ODETerm(lambda t, y, mlp: mlp(y))  # noqa: ARG005
        solved = dfx.diffeqsolve(term, dfx.Heun(), 0.0, 0.3, 0.1, y, args=eqx.combine(params, static), max_steps=8)
        return solved.ys[0]

    return solve, (params, normal(2)), 1


def diffrax_sde() -> Built:
    """Euler and Maruyama's method along one path of a virtual Brownian tree."""
    import diffrax as dfx

    path = dfx.VirtualBrownianTree(0.0, 0.3, tol=0.05, shape=(2,), key=jax.random.key(0))

    def solve(y: jax.Array) -> jax.Array:
        terms = dfx.MultiTerm(dfx.ODETerm(pendulum), dfx.ControlTerm(lambda t, y, args: jnp.diag(jnp.cos(y)), path))  # noqa: ARG005
        return dfx.diffeqsolve(terms, dfx.Euler(), 0.0, 0.3, 0.1, y, max_steps=8).ys[0]

    return solve, (normal(2),), 0


def nondifferentiable_carry() -> Built:
    """A loop that carries its time, which Equinox declares to have no derivative, through a branch."""
    import equinox.internal as eqxi

    def loop(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        def move(t: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
            return t + 0.1, y + 0.1 * jnp.sin(y + t)

        def step(carry: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
            t, y = carry
            return lax.cond(y[0] > -10, move, lambda t, y: (t, y), eqxi.nondifferentiable(t), y), None

        return lax.scan(step, (lax.stop_gradient(x[0]), x), None, length=3)[0]

    return loop, (normal(3),), 0


def checkpointed_while() -> Built:
    """Equinox' while loop with recursive checkpoints, which reverse mode goes through."""
    import equinox.internal as eqxi

    def loop(x: jax.Array) -> jax.Array:
        return eqxi.while_loop(
            lambda c: c[0] < 3,
            lambda c: (c[0] + 1, jnp.sin(c[1]) * c[1]),
            (jnp.zeros((), jnp.int32), x),
            max_steps=8,
            kind="checkpointed",
        )[1]

    return loop, (normal(3),), 0


def odeint() -> Built:
    from jax.experimental.ode import odeint

    def swing(y: jax.Array, times: jax.Array) -> jax.Array:
        return odeint(lambda y, t: pendulum(t, y, None), y, times, rtol=1e-3, atol=1e-4)

    return swing, (normal(2), jnp.array([0.0, 0.1, 0.2])), 0


PROGRAMS = (
    Program("lineax: a constant matrix", "lineax", lineax_constant),
    Program("lineax: the matrix an argument", "lineax", lineax_argument),
    Program("lineax: conjugate gradients", "lineax", lineax_cg),
    Program("lineax: tridiagonal", "lineax", lineax_tridiagonal),
    Program("lineax: least squares by QR", "lineax", lineax_least_squares),
    Program("optimistix: root_find", "optimistix", optimistix_root),
    Program("optimistix: least_squares", "optimistix", optimistix_least_squares),
    Program("optimistix: fixed_point", "optimistix", optimistix_fixed_point),
    Program("optimistix: minimise", "optimistix", optimistix_minimise),
    Program("jaxopt: ridge regression", "jaxopt", jaxopt_implicit),
    Program("diffrax: constant steps", "diffrax", diffrax_solve()),
    Program("diffrax: adaptive steps", "diffrax", diffrax_solve(adaptive=True), slow=True),
    Program("diffrax: DirectAdjoint", "diffrax", diffrax_solve("DirectAdjoint")),
    Program("diffrax: ForwardMode", "diffrax", diffrax_solve("ForwardMode", adaptive=True)),
    Program("diffrax: BacksolveAdjoint", "diffrax", diffrax_solve("BacksolveAdjoint"), slow=True),
    Program("diffrax: SaveAt(ts)", "diffrax", diffrax_solve(adaptive=True, save=True), slow=True),
    Program("diffrax: neural ODE", "diffrax", diffrax_neural, slow=True),
    Program("diffrax: SDE", "diffrax", diffrax_sde, slow=True),
    Program("equinox: nondifferentiable carry", "equinox", nondifferentiable_carry),
    Program("equinox: checkpointed while_loop", "equinox", checkpointed_while),
    Program("jax: odeint", "jax", odeint),
)
