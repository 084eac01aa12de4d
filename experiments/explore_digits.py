"""Watch the chain rule run on a real network: forward mode against reverse mode on handwritten digits.

Question   What do both directions of the chain rule see in a network that reads digits, and what
           does each cost?
Command    python experiments/explore_digits.py
Expect     About 98 % test accuracy. Reverse mode gets the 10×64 Jacobian for a fraction of forward
           mode's work, and the loss's gradient in one sweep where forward mode needs one for every
           parameter. The number ⟨cotangent, tangent⟩ is the same at every stage. Four figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro
from common import RESULTS, conclude, draw_spectra, heading, in_short, norm, verb

import jaxchain as jc
from jaxchain import LocalJacobian
from jaxchain.cost.measure import measure
from jaxchain.digits import Digits, accuracy, cross_entropy, fit_digits, load_digits
from jaxchain.show.table import Table, si

SIZES = (64, 128, 64, 10)


def main(seed: int = 0, quick: bool = False, out: Path = RESULTS, steps: int = 1500) -> None:
    """Train a small network on digits; contrast both modes of differentiation on it; draw its Jacobians.

    Parameters
    ----------
    seed
        Of the split, the initial weights, the minibatches and the directions that are followed.
    quick
        Train for a tenth of the steps.
    out
        Folder for figures and numbers.
    steps
        Training steps of 64 images each.
    """
    net, digits = jc.nets.mlp(SIZES), load_digits(seed)
    loss, before = cross_entropy(net), net.init(jax.random.key(seed))
    heading(f"A network of {len(net)} stages: {' → '.join(net.names)}")
    fit = train(net, before, digits, steps // 10 if quick else steps, seed)
    after = fit.params
    scores = [accuracy(net, params, digits.test) for params in (before, after)]
    print(f"{scores[1]:.1%} of {len(digits.test[1])} unseen digits are read correctly; untrained {scores[0]:.1%}.")

    image, label = digits.test[0][0], int(digits.test[1][0])
    heading(f"Both sweeps through the trained network, at a picture of a {label}")
    states = sweep_both_ways(net, after, image, label, seed)
    products = np.array([state["product"] for state in states])
    gap = float(np.ptp(products) / np.abs(products).max())

    heading("What the Jacobian costs: 10 logits by 64 pixels")
    modes = jc.compare_modes(net, after, image, repeats=20)
    print(modes)
    saving = modes["forward"].flops / modes["reverse"].flops
    heading("What the gradient of the loss costs: one number by all parameters")
    gradient = gradient_costs(loss, after, (digits.train[0][:64], digits.train[1][:64]), seed)

    jacobians = [with_product(net, params, image) for params in (before, after)]
    top = [float(np.linalg.norm(chain[-1].matrix, 2)) for chain in jacobians]
    training = (
        f"Training {verb(top[0], top[1])} the whole Jacobian's largest singular value from {top[0]:.3g} to {top[1]:.3g}"
    )
    spectra = {f"{when} training: accuracy {score:.1%}": chain for when, score, chain in zip(("before", "after"), scores, jacobians, strict=True)}  # fmt: skip
    figures = [
        draw_chain(jacobians[1][:-1], label, out / "digits_chain.png"),
        draw_sensitivity(np.asarray(jacobians[1][-1].matrix), label, out / "digits_jacobian.png"),
        draw_spectra(spectra, training, out / "digits_singular_values.png"),
        draw_gradient_norms(fit.history, out / "digits_gradient_norms.png"),
    ]
    findings = [
        f"Test accuracy {scores[1]:.1%} after {len(fit.history.loss)} steps.",
        f"The 10×64 Jacobian takes {si(modes['reverse'].flops, 'FLOP')} in reverse mode, {saving:.1f} times as many in forward mode.",
        f"The loss's gradient takes one reverse sweep, {si(gradient['reverse_flops'], 'FLOP')}; {gradient['parameters']} forward sweeps would take {gradient['ratio']:.0f} times as many.",
        f"⟨cotangent, tangent⟩ is the same at all {len(states)} states, to {gap:.0e}: the chain rule, read off at any cut.",
        f"{training}.",
    ]
    numbers = {
        "seed": seed, "quick": quick, "sizes": SIZES, "accuracy_before": scores[0], "accuracy": scores[1], "states": states,
        "product_gap": gap, "modes": modes.rows, "gradient": gradient, "largest_singular_value": top,
    }  # fmt: skip
    conclude(out / "explore_digits.json", numbers, findings, figures)


def train(net: jc.Chain, params: Any, digits: Digits, steps: int, seed: int) -> jc.train.Fit:
    """Fit with Adam; the norm of every stage's weight gradient is kept."""

    def observe(info: jc.train.StepInfo) -> dict[str, jax.Array]:
        return {name: optax.tree.norm(grads) for name, grads in info.grads.items()}

    return fit_digits(net, params, digits, steps=steps, seed=seed + 1, observe=observe)


def sweep_both_ways(net: jc.Chain, params: Any, image: jax.Array, label: int, seed: int) -> list[dict[str, Any]]:
    """Push one tangent forward and pull one cotangent back; print and return what every state saw."""
    tangent = jax.random.normal(jax.random.key(seed + 2), image.shape)
    forward = jc.forward_sweep(net, (params, image), tangent / jnp.linalg.norm(tangent))
    reverse = jc.reverse_sweep(net, (params, image), jax.nn.one_hot(label, 10))
    structures = ["", *(in_short(jacobian.structure) for jacobian in jc.local_jacobians(net, (params, image)))]
    states: list[dict[str, Any]] = []
    for k, (name, x, dx, xbar) in enumerate(zip(forward.names, forward.primals, forward.tangents, reverse.cotangents, strict=True)):  # fmt: skip
        norms = {"primal": norm(x), "tangent": norm(dx), "cotangent": norm(xbar)}
        states.append({"state": name, **norms, "product": float(jnp.vdot(xbar, dx)), "made_by": structures[k]})
    header = ("state", "‖primal‖", "‖tangent‖", "‖cotangent‖", "⟨c, t⟩", "made by J_k")
    rows = [[f"{v:.4g}" if isinstance(v, float) else v for v in state.values()] for state in states]
    step = f"Tangent: a random unit step in the pixels. Cotangent: the logit of {label}."
    print(Table("", header, rows, (step, "⟨c, t⟩ is what that logit gains along that step.")))
    return states


def gradient_costs(loss: Any, params: Any, batch: Any, seed: int) -> dict[str, Any]:
    """One reverse sweep, measured; one forward sweep, measured, times the number of parameters."""
    direction = optax.tree.random_like(jax.random.key(seed + 3), params)
    reverse = measure(jax.grad(loss), params, batch, repeats=20)
    forward = measure(lambda p, v: jax.jvp(lambda q: loss(q, batch), (p,), (v,))[1], params, direction, repeats=20)
    n, slopes = (
        sum(leaf.size for leaf in jax.tree.leaves(params)),
        (float(forward.result), float(jnp.asarray(optax.tree.vdot(reverse.result, direction)))),
    )
    rows = [
        ("reverse", "1", si(reverse.flops, "FLOP"), si(reverse.run_seconds, "s"), "measured"),
        ("forward", f"{n}", si(n * forward.flops, "FLOP"), si(n * forward.run_seconds, "s"), f"computed: {n} × one"),
    ]
    one = f"The mean loss of 64 images. One forward sweep was measured: {si(forward.flops, 'FLOP')}, {si(forward.run_seconds, 's')}."
    print(Table("", ("mode", "sweeps", "work", "time", "how known"), rows, (one,)))
    print(f"Along a random direction v the forward sweep gives {slopes[0]:.6g}, and ⟨gradient, v⟩ is {slopes[1]:.6g}.")
    return {
        "parameters": n, "reverse_flops": reverse.flops, "one_forward_flops": forward.flops,
        "ratio": n * forward.flops / reverse.flops, "along_direction": slopes,
    }  # fmt: skip


def with_product(net: jc.Chain, params: Any, image: jax.Array) -> tuple[LocalJacobian, ...]:
    """The local Jacobians, and the whole one after them."""
    whole = jc.suffix_jacobians(net, (params, image))[0]
    return *jc.local_jacobians(net, (params, image)), LocalJacobian("whole J", whole, (SIZES[0],), (SIZES[-1],))


def draw_chain(jacobians: tuple[LocalJacobian, ...], label: int, path: Path) -> Path:
    """J = J_q ⋯ J_1 as pictures."""
    off = [f"{s.zero_columns} of {s.shape[1]}" for s in (j.structure for j in jacobians) if s.zero_columns]
    switched = f"the ReLUs switch off {' and '.join(off)} units" if off else "no unit is switched off"
    title = f"J = J_{len(jacobians)} ⋯ J_1: at this picture of a {label} {switched}"
    return jc.plot.save(jc.plot.chain(jacobians, title=title), path)


def draw_sensitivity(whole: np.ndarray, label: int, path: Path) -> Path:
    """The Jacobian as it is, and its ten rows as ten pictures, two rows of five."""
    norms = np.linalg.norm(whole, axis=1)
    most, least = int(norms.argmax()), int(norms.argmin())
    with mpl.rc_context(jc.plot.STYLE):
        figure, (above, below) = plt.subplots(2, 1, figsize=(8, 6.5), height_ratios=(1, 2.2), layout="constrained")
        figure.set_layout_engine("constrained", hspace=0.08)
    title = f"The logit of {most} reacts most to the pixels of this {label} (‖row‖ {norms[most]:.2g}), that of {least} least ({norms[least]:.2g})"
    jc.plot.matrix(whole, ax=above, title=title, in_label="pixels", out_label="logits", colorbar=False)
    mosaic = whole.reshape(2, 5, 8, 8).transpose(0, 2, 1, 3).reshape(16, 40)
    jc.plot.matrix(mosaic, ax=below, title="the same ten rows, each as an 8×8 picture: the logit of …")
    below.set(xlabel="pixels: five pictures beside each other, each 8 wide", ylabel="pixels: two, each 8 high")
    below.set_xticks(np.arange(-0.5, 40, 8), [])
    below.set_yticks(np.arange(-0.5, 17, 8), [])
    below.grid(color="#222222", linewidth=1)
    box = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1.5}
    for digit in range(10):
        place = (digit % 5 * 8 - 0.2, digit // 5 * 8 - 0.2)
        below.annotate(str(digit), place, fontsize=11, fontweight="bold", va="top", bbox=box)
    return jc.plot.save(figure, path)


def draw_gradient_norms(history: jc.train.History, path: Path) -> Path:
    """Norm of the loss's gradient with respect to every layer's weights, over training."""
    window = max(1, len(history.loss) // 50)
    length = len(history.loss) // window
    lines = {n: v[: length * window].reshape(length, window).mean(1) for n, v in history.observed.items()}
    falls = [line[0] / line[-1] for line in lines.values()]
    change = f"fall {min(falls):.0f}- to {max(falls):.0f}-fold" if min(falls) > 1.5 else "do not all fall"
    title = f"The {len(lines)} layers' gradient norms {change} over {len(history.loss)} steps"
    steps, xlabel = window * (np.arange(length) + 0.5), f"training step (means over {window} steps)"
    return jc.plot.save(jc.plot.gradient_norms(steps, lines, title=title, xlabel=xlabel), path)


if __name__ == "__main__":
    tyro.cli(main)
