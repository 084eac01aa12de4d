"""From two scalars to a network: a gradient is made by hand, then by JAX, then by a library.

Question   How do the numbers of a gradient come about, and what do value_and_grad and an optax
           optimiser add to doing it by hand?
Command    python experiments/gradient_descent.py
Expect     h(x) = g(f(x)) in numbers that can be checked on paper. The gradient of a layer's weights
           is the outer product *cotangent of its output × its input*, to rounding what jax.grad and
           reverse_sweep give. Plain gradient descent with it and optax.sgd draw the same curve.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from common import RESULTS, conclude, heading

import jaxchain as jc
from jaxchain.digits import Batch, accuracy, cross_entropy, load_digits
from jaxchain.show.table import Table


def main(seed: int = 0, quick: bool = False, out: Path = RESULTS, steps: int = 300, rate: float = 0.2) -> None:
    """Make gradients by hand, check them, and descend with them.

    Parameters
    ----------
    seed
        Of the split and the initial weights.
    quick
        Take a tenth of the steps.
    out
        Folder for the figure and the numbers.
    steps
        Steps of gradient descent, each on all training images.
    rate
        Learning rate.
    """
    steps = steps // 10 if quick else steps
    heading("Two scalars: h(x) = g(f(x)) with f(x) = x² and g(u) = 1/(1 + u), at x = 2")
    scalars = on_paper(2.0)

    digits = load_digits(seed)
    net = jc.nets.mlp([64, 32, 10], "tanh", "lecun")
    params = net.init(jax.random.key(seed))
    heading(f"A network, {' → '.join(net.names)}, at one image: weight gradient = cotangent × input")
    gaps = check_layers(net, params, digits.train[0][0], digits.train[1][0])

    heading(f"{steps} steps of gradient descent on {len(digits.train[1])} images")
    loss = cross_entropy(net)
    params_by_hand, by_hand = descend(net, params, digits.train, steps, rate)
    fit = jc.train.fit(loss, params, digits.train, optax.sgd(rate), steps=steps)
    curve_gap = float(np.max(np.abs(by_hand - fit.history.loss)))
    scores = {"by_hand": accuracy(net, params_by_hand, digits.test), "optax": accuracy(net, fit.params, digits.test)}
    print(Table("", ("", "first loss", "last loss", "test accuracy"), [
        ("by hand", f"{by_hand[0]:.6f}", f"{by_hand[-1]:.6f}", f"{scores['by_hand']:.1%}"),
        ("optax.sgd", f"{fit.history.loss[0]:.6f}", f"{fit.history.loss[-1]:.6f}", f"{scores['optax']:.1%}"),
    ]))  # fmt: skip

    figure = draw(by_hand, fit.history.loss, curve_gap, out)
    findings = [
        f"h′(2) = g′(f(2))·f′(2) = {scalars['g_prime']:.3g} · {scalars['f_prime']:.3g} = {scalars['product']:.3g}; jax.grad says {scalars['jax_grad']:.3g}.",
        f"Cotangent × input differs from jax.grad by at most {max(gaps['jax_grad'].values()):.1e}, from reverse_sweep by {max(gaps['reverse_sweep'].values()):.1e}.",
        f"The loss curves by hand and by optax.sgd differ by at most {curve_gap:.1e} over {steps} steps, and end at {fit.history.loss[-1]:.4f}.",
    ]
    numbers = {
        "seed": seed,
        "quick": quick,
        "rate": rate,
        "scalars": scalars,
        "gradient_gap": gaps,
        "curve_gap": curve_gap,
        "loss_by_hand": by_hand,
        "loss_optax": fit.history.loss,
        "accuracy": scores,
    }
    conclude(out / "gradient_descent.json", numbers, findings, [figure])


def on_paper(x: float) -> dict[str, float]:
    """The chain rule in one dimension, step by step, both ways round."""
    h = jc.Chain([jc.Stage("f", lambda x: x**2), jc.Stage("g", lambda u: 1 / (1 + u))])
    forward, reverse = jc.forward_sweep(h, (x,), 1.0), jc.reverse_sweep(h, (x,), 1.0)
    rows = zip(forward.names, forward.primals, forward.tangents, reverse.cotangents, strict=True)
    print(
        Table(
            "",
            ("state", "primal", "tangent ↓", "cotangent ↑"),
            [(name, *(f"{float(v):.4g}" for v in values)) for name, *values in rows],
        )
    )
    f_prime, g_prime = 2 * x, -1 / (1 + x**2) ** 2
    print(f"On paper: f′ = 2x = {f_prime:g}, g′ = −1/(1 + u)² = {g_prime:g}, h′ = g′·f′ = {g_prime * f_prime:g}.")
    print("The tangent gathers f′ first, then g′; the cotangent g′ first, then f′. Both end at h′.")
    by_sweeps = float(forward.tangents[-1]), float(reverse.cotangents[0])
    return {"f_prime": f_prime, "g_prime": g_prime, "product": g_prime * f_prime, "forward": by_sweeps[0], "reverse": by_sweeps[1], "jax_grad": float(jax.grad(h)(x))}  # fmt: skip


def loss_and_gradients(
    net: jc.Chain, params: Any, image: jax.Array, label: jax.Array
) -> tuple[jax.Array, dict[str, Any]]:
    """The loss of one image and its gradients, by the chain rule alone.

    Cross-entropy's cotangent of the logits is softmax − one-hot. Pulled back to the output y of a
    layer y = Wx + b it is ȳ; then W̄ = ȳ xᵀ and b̄ = ȳ.
    """
    logits = net(params, image)
    truth = jax.nn.one_hot(label, logits.size)
    sweep = jc.reverse_sweep(net, (params, image), jax.nn.softmax(logits) - truth)
    gradients = {
        name: {"w": jnp.outer(cotangent, state), "b": cotangent}
        for name, state, cotangent in zip(net.names, sweep.primals[:-1], sweep.cotangents[1:], strict=True)
        if name in params
    }
    return -jax.nn.log_softmax(logits) @ truth, gradients


def check_layers(net: jc.Chain, params: Any, image: jax.Array, label: jax.Array) -> dict[str, dict[str, float]]:
    """Largest difference, layer by layer, from jax.grad and from the sweep's own answer."""
    _, by_hand = loss_and_gradients(net, params, image, label)
    by_jax = jax.grad(cross_entropy(net))(params, (image[None], label[None]))
    cotangent = jax.nn.softmax(net(params, image)) - jax.nn.one_hot(label, 10)
    by_sweep = jc.reverse_sweep(net, (params, image), cotangent).arg_cotangents[0]
    gaps = {"jax_grad": distance(by_hand, by_jax), "reverse_sweep": distance(by_hand, by_sweep)}
    rows = [
        (n, "×".join(map(str, by_hand[n]["w"].shape)), *(f"{gap[n]:.1e}" for gap in gaps.values())) for n in by_hand
    ]
    print(Table("", ("layer", "weights", "gap to jax.grad", "gap to reverse_sweep"), rows))
    return gaps


def distance(left: dict[str, Any], right: dict[str, Any]) -> dict[str, float]:
    """Largest difference of an entry, by layer."""
    return {name: max(float(jnp.abs(left[name][k] - right[name][k]).max()) for k in ("w", "b")) for name in left}


def descend(net: jc.Chain, params: Any, batch: Batch, steps: int, rate: float) -> tuple[Any, np.ndarray]:
    """Plain gradient descent: w ← w − rate · mean gradient. Returns the parameters and the losses."""
    step: Callable[[Any], Any] = jax.jit(lambda p: descent_step(net, p, batch, rate))
    losses: list[float] = []
    for _ in range(steps):
        params, loss = step(params)
        losses.append(float(loss))
    return params, np.array(losses)


def descent_step(net: jc.Chain, params: Any, batch: Batch, rate: float) -> tuple[Any, jax.Array]:
    """One step, and the loss before it."""
    losses, gradients = jax.vmap(lambda image, label: loss_and_gradients(net, params, image, label))(*batch)
    return jax.tree.map(lambda w, g: w - rate * g.mean(0), params, gradients), losses.mean()


def draw(by_hand: np.ndarray, by_optax: np.ndarray, gap: float, out: Path) -> Path:
    """Both loss curves."""
    verdict = "the same loss curve" if gap < 1e-4 else "different loss curves"
    title = f"By hand and by optax.sgd: {verdict}, apart by at most {gap:.0e}"
    curves = {"by hand": by_hand, "optax.sgd": by_optax}
    axes = jc.plot.gradient_norms(
        np.arange(len(by_hand)),
        curves,
        title=title,
        xlabel="step of gradient descent",
        ylabel="mean cross-entropy (nats)",
    )
    return jc.plot.save(axes, out / "gradient_descent.png")


if __name__ == "__main__":
    tyro.cli(main)
