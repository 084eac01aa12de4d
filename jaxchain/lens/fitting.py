"""`fit`: the lens of a model over samples, that can be killed at any time and goes on where it was. Builds on `running`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax

from jaxchain.chain import Chain
from jaxchain.checks import check_function, flag, integer, path_to_write, shown, text
from jaxchain.derivative import Pass
from jaxchain.lens.again import load
from jaxchain.lens.positions import Mask, check_mask
from jaxchain.lens.reading import Lens
from jaxchain.lens.running import Options, Run
from jaxchain.meshes import sharding_of
from jaxchain.patterns import check_patterns
from jaxchain.show.progress import telling

__all__ = ["fit"]

FILE = "lens.npz"


def fit(
    chain: Chain | Callable[..., Any],
    inputs: Iterable[tuple[Any, ...]],
    *,
    argnum: int | None = None,
    until: str | None = None,
    stages: str | list[str] | tuple[str, ...] | None = None,
    skip_first: int = 16,
    mask: Mask = None,
    chunk_size: int | None = 32,
    sharding: jax.sharding.Mesh | jax.sharding.Sharding | None = None,
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int = 10,
    progress: bool = False,
) -> Lens:
    """The Jacobian lens of a residual chain: J_k = E[∂x_q/∂x_k] for every state that has x_q's positions.

    Of one sample, J_k is the mean over source positions p of Σ_{p′} ∂x_q[p′]/∂x_k[p]: one reverse sweep of the width_out
    output directions, each a one-hot at every target position at once, from which all states are read off. Sources and
    targets are the same positions: all but the first ``skip_first`` and the last one. The lens is the mean over samples.

    Parameters
    ----------
    chain
        A chain along a sequence, or a plain function (Flax, nnx, Equinox, …), whose chain is discovered at the shapes of
        each sample. Along tokens it begins at their embedding. States are (positions, width), with any axes of one
        before, floating point.
    inputs
        Tuples of the chain's arguments, one a sample: ``((params, tokens) for tokens in texts)``. Arguments that hold
        floating-point numbers, but for the chain input, are the model's parameters, the same at every sample; others
        (random keys, masks) may differ. Gone through once; to go on from a checkpoint, from the beginning again.
    argnum
        Of a plain function, which argument is the chain input; default: the last.
    until
        The name of the state x_q, mostly the last of the residual stream: what comes after (the last norm, the
        unembedding) is ``unembed`` of `Lens.apply`. ``None``: the chain's last. Of a plain function
        ``print(jc.discover(fun, *args))`` tells the names.
    stages
        Patterns of names such as ``"block_*"``: the states to read. ``None``: all.
    skip_first
        How many positions at the beginning are no sources and no targets.
    mask
        ``mask(*args)``, or the position of an argument: (positions,) booleans, true where a position holds a token. The
        first and last of these are then left out.
    chunk_size
        How many output directions are pulled back at once; ``None``: all. Bounds the memory.
    sharding
        Spreads the output directions over devices, as in `jaxchain.jacobian`: rows of the lens, which stay there.
    checkpoint_dir
        A folder for ``lens.npz``, written whole or not at all. If there is one, the samples that it has seen are passed
        over, and the result is to the bit that of a call that was never interrupted.
    checkpoint_every
        After how many samples it is written; and at the end, and where a sample is refused.
    progress
        Say on standard error which sample is under way.

    Returns
    -------
    Lens
        ``.jacobians``, ``.standard_errors``, ``.count``; see `Lens`. Not for use under jit, which a lens itself is.

    Raises
    ------
    ValueError
        If there is no sample, or no axis of positions; if no position of a sample is left; if a Jacobian is not finite
        (names the state and the sample; the checkpoint keeps those before); if the model draws random numbers from a key
        of its own; if parameters change between samples; if a checkpoint is cut short, or of another model, other
        samples or options.
    KeyError
        If no state is named ``until``, or matches a pattern.
    TypeError
        If an argument is malformed.
    ModeError
        If a stage has no reverse mode; names it.

    References
    ----------
    Anthropic, jacobian-lens, 2026, github.com/anthropics/jacobian-lens; Welford, 1962.

    Examples
    --------
    Of linear blocks x + x W the lens is the product of I + W, whatever the samples:

    >>> weights = {"a": jnp.array([[0.0, 1.0], [0.0, 0.0]]), "b": jnp.array([[0.0, 0.0], [2.0, 0.0]])}
    >>> def model(weights, x):
    ...     x = x + x @ weights["a"]
    ...     return x + x @ weights["b"]
    >>> inputs = [(weights, jax.random.normal(jax.random.key(k), (6, 2))) for k in range(4)]
    >>> lens = jc.lens.fit(model, inputs, skip_first=2)
    >>> lens.jacobians["input"].tolist()  # of column vectors, so the transpose
    [[3.0, 2.0], [1.0, 1.0]]
    >>> float(lens.standard_errors["input"].max()), lens.count
    (0.0, 4)
    """
    check_function(chain, "lens.fit")
    if isinstance(inputs, (str, bytes, dict)) or not isinstance(inputs, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = f"inputs gives tuples of the chain's arguments, one a sample, but {shown(inputs)} was given."
        raise TypeError(msg)
    flag("progress", progress)
    every = integer("checkpoint_every", checkpoint_every, "after how many samples the checkpoint is written", least=1)
    options = Options(
        chain,
        argnum,
        text("until", until, optional=True),
        None if stages is None else tuple(check_patterns(stages)),
        integer("skip_first", skip_first, "how many positions at the beginning are left out", least=0),
        check_mask(mask),
        Pass(chunk_size, sharding_of(sharding)),
    )
    place = None if checkpoint_dir is None else path_to_write("checkpoint_dir", checkpoint_dir) / FILE
    run = Run(options, place, load(place) if place is not None and place.exists() else None)
    try:
        with telling(progress) as say:
            for args in inputs:
                say(f"lens: sample {run.number}")
                run.take(args)
                if run.number % every == 0:
                    run.save()
    except BaseException:  # an interruption as well: nothing is lost
        run.save()
        raise
    return run.finished()
