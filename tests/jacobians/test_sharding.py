"""A basis spread over eight devices gives the same Jacobian, each device its share of the work."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
    import json, sys
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec
    import jaxchain as jc
    from jaxchain.cost.measure import flops

    (kind,) = sys.argv[1:]
    mesh = jax.make_mesh((8,), ("basis",), axis_types=(getattr(AxisType, kind),))
    jax.set_mesh(mesh)  # explicit axes want it; others do not mind
    rng = np.random.default_rng(0)
    inner, outer = (jnp.asarray(rng.normal(size=shape), jnp.float32) / 8 for shape in ((64, 48), (64, 64)))

    def fun(x):
        return jnp.tanh(outer @ jnp.tanh(inner @ x))

    x = jnp.ones(48)
    want = jax.jacrev(fun)(x)
    found = {}
    for mode, chunk_size in (("forward", None), ("reverse", None), ("auto", None), ("reverse", 32)):
        spread, alone = (
            jax.jit(jc.jacobian(fun, mode=mode, sharding=where, chunk_size=chunk_size))
            for where in (NamedSharding(mesh, PartitionSpec("basis")), None)
        )
        jac = spread(x)
        found[f"{mode} {chunk_size}"] = {
            "error": float(jnp.abs(jac - want).max()),
            "share": flops(spread, x) / flops(alone, x),
            "shards": len({str(shard.index) for shard in jac.addressable_shards}),
        }
    print(json.dumps(found))
"""


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_a_basis_over_eight_devices_costs_each_an_eighth(kind):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), kind],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for way, found in json.loads(run.stdout).items():
        assert found["error"] < 1e-5, way
        # Every device evaluates the function, and reads off what it can, by itself.
        assert found["share"] < 1.4 / 8, way
        assert way == "reverse 32" or found["shards"] == 8, way
