"""Arrays spread over four devices as a part of their types have the second derivatives that they have on one device."""

import json
import os
import subprocess
import sys
import textwrap

SCRIPT = """
    import json
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    import jaxchain as jc

    jax.config.update("jax_enable_x64", True)
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Explicit, AxisType.Explicit))
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(4, 4)), "b": rng.normal(size=4)}
    x = rng.normal(size=4)
    specs = {"w": P("a", "b"), "b": P("b")}

    def fun(params, x, power):
        if power != 3:  # a Python number stays one
            raise ValueError
        y = jnp.tanh(params["w"] @ jnp.sin(x) + params["b"])
        return jnp.sum(y**power) + jnp.sum(y) ** 2

    def everything(params, x):
        alone = lambda params, x: fun(params, x, 3)
        at = {"argnum": 1}
        return {
            "hvp": jc.hvp(alone, (params, x), params),
            "hessian": [jc.hessian(alone, (params, x), **at, chunk_size=size) for size in (None, 3)],
            "stages": jc.hessian(alone, (params, x), **at, mode="stages"),
            "blocks": jc.hessian(fun, (params, x, 3)),
            "diagonal": jc.hessian_diagonal(alone)(params, x),
            "laplacian": jc.laplacian(alone, **at)(params, x),
            "weighted": jc.laplacian(alone, **at, weights=x)(params, x),
            "mapped": jax.vmap(jc.laplacian(alone, **at), (None, 0))(params, jnp.stack([x, 2 * x])),
            "again": jax.grad(jc.laplacian(alone, **at))(params, x),
        }

    want = jax.jit(everything)(params, jnp.asarray(x))
    wide = {name: jax.device_put(params[name], NamedSharding(mesh, spec)) for name, spec in specs.items()}
    there = wide, jax.device_put(x, NamedSharding(mesh, P("a")))
    alone = lambda params, x: fun(params, x, 3)
    eager = [jc.hessian(fun, (*there, 3), argnum=1)]
    with jax.set_mesh(mesh):
        got = jax.jit(everything)(*there)
        eager += [jc.hessian(fun, (*there, 3), argnum=1)]
        traces = [jc.curvature(alone, *args).whole.trace for args in (there, (params, x))]
        plans = [str(jc.laplacian(alone, 1).plan(*args)) for args in (there, (params, x))]
        modes = jc.compare_modes(alone, *there, argnum=1, of="hessian", repeats=1)
        closing, refused = lambda x: jnp.sum(jnp.tanh(wide["w"] @ x) ** 2), []
        for call in (jc.laplacian(closing), jax.jit(jc.hessian_diagonal(closing)), lambda x: jc.curvature(closing, x)):
            for given in (there[1], jnp.asarray(x)):
                try:
                    call(given)
                    refused.append("")
                except ValueError as error:
                    refused.append(str(error))
    layouts = [jax.typeof(leaf).sharding.spec for leaf in (got["hvp"]["w"], got["diagonal"]["b"], *eager)]
    print(json.dumps({
        "errors": {
            name: max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(*map(jax.tree.leaves, (got[name], want[name])), strict=True))
            for name in want
        } | {"eager": max(float(np.abs(np.asarray(matrix) - np.asarray(want["stages"])).max()) for matrix in eager), "traces": abs(traces[0] - traces[1])},
        "layouts": [list(spec) for spec in layouts],
        "plans": plans,
        "modes": [row.mode for row in modes.rows],
        "refused": refused,
    }))
"""


def test_types_that_say_how_arrays_are_spread_change_nothing():
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], capture_output=True, text=True, env=env, check=False
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert max(found["errors"].values()) < 1e-10, found["errors"]
    assert found["layouts"] == [["a", "b"], ["b"], ["a", None], ["a", None]]
    assert found["plans"][0] == found["plans"][1]
    assert {"forward-over-reverse", "stages", "auto"} <= set(found["modes"])
    for words in found["refused"]:
        assert "closes over an array that is spread over devices as a part of its type" in words
