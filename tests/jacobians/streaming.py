"""What tests of storing stream: a Jacobian of many blocks. Run as a script, it does so in a process that may be killed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxchain as jc

ROWS = 400


def fun(weights: Any, x: Any) -> Any:
    """No waist, so that every block pulls its own rows back."""
    return {"y": jnp.tanh(weights["out"] @ jnp.sin(weights["in"] @ x)), "x": x**2}


def arguments(seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    weights = {"in": rng.normal(size=(50, 40)), "out": rng.normal(size=(ROWS - 40, 50))}
    return {name: jnp.asarray(value, jnp.float32) for name, value in weights.items()}, jnp.asarray(
        rng.normal(size=40), jnp.float32
    )


def stream(path: Path | str, **options: Any) -> Any:
    return jc.jacobian_to_zarr(fun, arguments(), path, **{"argnum": 1, "mode": "reverse", "progress": False, **options})


def files(path: Path) -> dict[str, bytes]:
    """All that lies in a folder, by name."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


if __name__ == "__main__":
    sys.stdout.write("begins\n")
    sys.stdout.flush()
    stream(sys.argv[1], block=int(sys.argv[2]))
