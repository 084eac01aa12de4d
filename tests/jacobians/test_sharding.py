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
    for mode in ("forward", "reverse", "auto"):
        spread, alone = (
            jax.jit(jc.jacobian(fun, mode=mode, sharding=where)).lower(x).compile()
            for where in (NamedSharding(mesh, PartitionSpec("basis")), None)
        )
        jac = spread(x)
        found[mode] = {
            "error": float(jnp.abs(jac - want).max()),
            "share": spread.cost_analysis()["flops"] / alone.cost_analysis()["flops"],
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
    for found in json.loads(run.stdout).values():
        assert found["error"] < 1e-5
        assert found["share"] < 1.4 / 8  # every device evaluates the function, and reads off what it can, by itself
        assert found["shards"] == 8
