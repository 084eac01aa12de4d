"""What does the report page show of a network that was trained on digits?

Question   An autoencoder squeezes pictures of digits through eight numbers. Where is its waist, which
           order of multiplication is cheap, and what do both directions see on their way through?
Command    python experiments/digits_report.py
Expect     A page that opens from disk, and a picture of its top where Chromium is on the machine.
           A second page puts the same network before and after training beside each other.
           Multiplied from the waist outwards the Jacobian takes several times less work than in
           forward or reverse mode.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from common import RESULTS, conclude, heading, picture_of

import jaxchain as jc
from jaxchain.digits import adam, load_digits
from jaxchain.jacobians.compare import predictions
from jaxchain.show.table import si

SIZES = (64, 128, 64, 8)


def main(seed: int = 0, quick: bool = False, out: Path = RESULTS, steps: int = 2000) -> None:
    """Train an autoencoder on digits and write its report page.

    Parameters
    ----------
    seed
        Of the split, the initial weights and the minibatches.
    quick
        Train for a tenth of the steps.
    out
        Folder for the page, its picture and the numbers.
    steps
        Training steps of 64 images each.
    """
    net, digits = jc.nets.autoencoder(SIZES, "tanh"), load_digits(seed)
    count = steps // 10 if quick else steps
    heading(f"An autoencoder of {len(net)} stages: {' → '.join(net.names)}")

    def loss(params: Any, images: jax.Array) -> jax.Array:
        return jnp.mean((jax.vmap(net, (None, 0))(params, images) - images) ** 2)

    images, unseen = digits.train[0], digits.test[0]
    params, key = net.init(jax.random.key(seed)), jax.random.key(seed + 1)
    fit = jc.train.fit(loss, params, images, adam(count), steps=count, batch_size=64, key=key)
    before, after = float(loss(params, unseen)), float(loss(fit.params, unseen))

    out.mkdir(parents=True, exist_ok=True)
    path = jc.report(
        net, fit.params, unseen[0], path=out / "digits_report.html", title="digits autoencoder", progress=True
    )
    shots = [picture_of(path, out / "digits_report.png", "#mode=planned&step=4")]
    compared = jc.compare(
        (net, (params, unseen[0])), (net, (fit.params, unseen[0])), out / "digits_compare.html",
        names=("before training", "after"), title="digits autoencoder, before and after training", progress=True,
    )  # fmt: skip
    print(compared)
    shots.append(picture_of(compared.path, out / "digits_compare.png", size=(1280, 1000)))
    plan = jc.plan(net, (fit.params, unseen[0]))
    predicted = predictions(plan)
    gain = min(predicted["forward"], predicted["reverse"]) / predicted["auto"]
    findings = [
        compared.headline,
        f"The mean squared error of unseen pictures falls from {before:.3f} to {after:.4f}.",
        f"The waist is {plan.waist}, {min(plan.sizes)} numbers: the planned order takes {si(predicted['auto'], 'FLOP')}, {gain:.1f} times less than the better simple mode.",
        f"The page takes {si(path.stat().st_size, 'B')}.",
    ]
    numbers = {
        "seed": seed, "quick": quick, "sizes": SIZES, "error": (before, after), "gain": gain, "pages": [path.name, compared.path.name],
        "page_bytes": path.stat().st_size,
    }  # fmt: skip
    conclude(out / "digits_report.json", numbers, findings, list(filter(None, shots)))
    print(f"  {path.name}\n  {compared.path.name}")


if __name__ == "__main__":
    tyro.cli(main)
