"""Chapter 1, the chain rule on numbers: in h(x) = g(f(x)) slopes multiply, each taken where it is."""

from __future__ import annotations

from jaxchain.lesson.cell import Workbook, number
from jaxchain.lesson.chapter import Amount, Chapter
from jaxchain.show.plain import plain

__all__ = ["slopes_multiply"]


def slopes_multiply() -> Chapter:
    """f(x) = x², g(u) = sin u, over stored values of x."""
    book = Workbook()
    point = book.run(
        "point",
        """
f, g = jnp.square, jnp.sin
x = 1.5
u = f(x)
h = lambda x: g(f(x))
jax.grad(f)(x), jax.grad(g)(u), jax.grad(h)(x)
""",
    )
    step = book.run("step", "step = 0.01\n(h(x + step) - h(x)) / step")
    xs, us, ys, f_slopes, g_slopes, slopes, moved_us, moved_ys = book.run(
        "many",
        """
xs = jnp.linspace(0, 2, 41)
us, ys = f(xs), g(f(xs))
at_all = lambda f, places: jax.vmap(jax.grad(f))(places)
slopes = at_all(f, xs), at_all(g, us), at_all(h, xs)
xs, us, ys, *slopes, f(xs + 0.1), h(xs + 0.1)
""",
    )
    three = book.run(
        "three",
        """
x0 = 0.5
x1 = jnp.square(x0)
x2 = jnp.sin(x1)
a, b, c = (jax.grad(jnp.square)(x0), jax.grad(jnp.sin)(x1),
           jax.grad(jnp.exp)(x2))
h = lambda x: jnp.exp(jnp.sin(jnp.square(x)))
a, b, c, c * b * a, jax.grad(h)(x0)
""",
    )
    answer, at_x = book.run(
        "check",
        """
f, g = (lambda x: 3 * x + 1), jnp.square
jax.grad(lambda x: g(f(x)))(1.0), jax.grad(f)(1.0) * jax.grad(g)(1.0)
""",
    )
    values = {
        "x": 1.5, "u": 2.25, "point": point, "step": step, "three": three, "answer": answer,
        "xs": xs, "us": us, "ys": ys, "f_slopes": f_slopes, "g_slopes": g_slopes, "slopes": slopes,
        "moved_us": moved_us, "moved_ys": moved_ys, "width": 0.1, "start": 30,
    }  # fmt: skip
    asks = "If one function feeds another, how fast does the end change when the start does?"
    return Chapter("slopes", "Slopes multiply", asks, _check(answer, at_x), plain(values), book.cells)


def _check(answer: float, at_x: float) -> Amount:
    return Amount(
        "Let f(x) = 3x + 1 and g(u) = u². What is the slope of g(f(x)) at x = 1?",
        float(answer),
        f"f has slope 3 everywhere. At x = 1 it gives u = 4, and there u² has slope 2 · 4 = 8. Together: 8 · 3 = {number(answer)}.",
        "Take it in two steps. What is u = f(1)? What slope has u² there? Then multiply by the slope of f.",
        (
            (float(at_x), "That is 2 · 3: the slope of g at 1. But g never sees x. It sees u = f(1) = 4, so its slope is wanted there."),
            (11.0, "That is 8 + 3. Both slopes are right, but a step is stretched by 3 and the result by 8: they multiply."),
            (16.0, "That is the value g(f(1)) itself. The question asks how fast it changes."),
            (8.0, "That is the slope of g, at the right place. The step that reaches g has been stretched by f already: multiply by 3."),
        ),
    )  # fmt: skip
