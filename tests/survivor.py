"""A run of training that sends itself a signal at a moment that nobody chose: ``survivor.py FOLDER SIGNAL SECONDS STEPS``.

The moment is so many seconds after its first checkpoint. Tests train the same in their own process, to compare.
"""

import os
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxchain as jc

EVERY = 5
NET = jc.nets.mlp([4, 8, 2], "tanh")
RNG = np.random.default_rng(7)
DATA = {"x": RNG.normal(size=(30, 4)).astype(np.float32), "y": RNG.normal(size=(30, 2)).astype(np.float32)}


def loss(params, batch):
    return jnp.mean((jax.vmap(NET, (None, 0))(params, batch["x"]) - batch["y"]) ** 2)


def observe(info):
    return optax.tree.norm(info.grads)


OPTIMIZER = optax.chain(optax.add_noise(1e-3, 0.55, jax.random.key(3)), optax.adam(1e-2))
START = NET.init(jax.random.key(0))


def train(folder, steps):
    return jc.train.fit(
        loss,
        START,
        DATA,
        OPTIMIZER,
        steps=steps,
        batch_size=7,
        key=jax.random.key(1),
        observe=observe,
        checkpoint_dir=folder,
        checkpoint_every=EVERY,
        progress=False,
    )


def steps_in(folder):
    """The steps of the checkpoints in a folder."""
    return sorted(int(path.name.removeprefix("jaxchain_")) for path in Path(folder).glob("jaxchain_*") if path.name[9:].isdigit())  # fmt: skip


def signal_oneself(folder, number, seconds):
    before = steps_in(folder)
    while steps_in(folder) == before:
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    folder, number, seconds, steps = sys.argv[1:]
    threading.Thread(target=signal_oneself, args=(folder, int(number), float(seconds)), daemon=True).start()
    train(folder, int(steps))
