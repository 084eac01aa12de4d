"""Every call that takes ``sharding=``, on all devices there are and on one: what differs, and what each device does.

Run by `test_devices`: on one process with eight devices, or as one of several processes (``process processes port``).
"""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import jax

if len(sys.argv) > 1:
    process, processes, port = map(int, sys.argv[1:])
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, process)

import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxchain as jc
from jaxchain.batches import Split, whole
from jaxchain.diagnosis.krylov import draws
from jaxchain.diagnosis.walk import stages_at
from jaxchain.meshes import on_host, placed, sharding_of
from jaxchain.steps import update

MESH = jax.make_mesh((jax.device_count(),), ("rows",), axis_types=(AxisType.Auto,))
DEVICES = jax.device_count()
SIZE = 128
SPREAD = sharding_of(MESH)

NET, DEEP = (jc.nets.mlp([SIZE] * layers, "tanh") for layers in (4, 7))
KEY, X = jax.random.key(0), jax.random.normal(jax.random.key(1), (SIZE,))
ARGS, DEEP_ARGS = (NET.init(KEY), X), (DEEP.init(KEY), X)
BATCH = jax.random.normal(jax.random.key(2), (8 * DEVICES, SIZE))


def over_batch(params, xs):
    return jax.vmap(NET, (None, 0))(params, xs)


def compiled(fun, *args):
    """What XLA makes of a function, and each device's floating-point operations and bytes (temporaries, results)."""
    made = jax.jit(fun).lower(*args).compile()
    memory = made.memory_analysis()
    size = memory.temp_size_in_bytes + memory.output_size_in_bytes
    return made, np.array([made.cost_analysis()["flops"], size])


def jacobian(mode, net=NET, chunk=None):
    return lambda where: jc.jacobian(net, mode=mode, chunk_size=chunk, sharding=where)


def swept(sweep, net, chunk=None):
    return lambda where: lambda *args: tuple(sweep(net, args, chunk_size=chunk, sharding=where))


def batched(chunk=None):
    return lambda where: jc.batch_jacobian(over_batch, 1, chunk_size=chunk, sharding=where)


CALLS = {
    "jacobian reverse": (jacobian("reverse"), ARGS),
    "jacobian mixed": (jacobian("mixed"), ARGS),
    "suffix_jacobians in chunks": (swept(jc.suffix_jacobians, NET, 64), ARGS),
    "batch_jacobian": (batched(), (ARGS[0], BATCH)),
    "jacobian forward": (jacobian("forward"), ARGS),
    "jacobian reverse in chunks": (jacobian("reverse", NET, 64), ARGS),
    "jacobian forward in chunks": (jacobian("forward", NET, 64), ARGS),
    "prefix_jacobians": (swept(jc.prefix_jacobians, DEEP), DEEP_ARGS),
    "suffix_jacobians": (swept(jc.suffix_jacobians, NET), ARGS),
    "batch_jacobian in chunks": (batched(32), (ARGS[0], BATCH)),
}


TOKENS, MIX = jax.random.normal(KEY, (256, 32)), jax.random.normal(jax.random.key(5), (32, 128)) / 6
SMALL = jc.nets.mlp([SIZE] * 2, "tanh")
SPECTRA = {
    "matrix": ((SMALL, (SMALL.init(KEY), X)), {}),
    "krylov": ((jc.Chain([jc.Stage("mix", lambda x: jnp.tanh(x @ MIX) @ MIX.T)]), (TOKENS,)), {"k": 3}),
}


def apart(found, want):
    """The largest gap between two trees of arrays."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True)
    return max(float(np.abs(on_host(a) - on_host(b)).max()) for a, b in pairs)


def spec(array):
    """Over which axes of the mesh an array's own are spread."""
    return str(getattr(array.sharding, "spec", "one device"))


def compare(make, args):
    (together, ours), (alone, theirs) = (compiled(make(where), *args) for where in (MESH, None))
    found = together(*args)
    return {
        "error": apart(found, alone(*args)),
        "spread": sorted({spec(leaf) for leaf in jax.tree.leaves(found)}),
        **shares(ours, theirs),
    }


def shares(ours, theirs):
    """A device's share, as a multiple of what it would be if all were divided."""
    return dict(zip(("flops", "bytes"), DEVICES * ours / theirs, strict=True))


def parameters_spread():
    """Parameters split over one axis of a mesh, rows of the Jacobian over another."""
    mesh = jax.make_mesh((2, DEVICES // 2), ("rows", "model"), axis_types=(AxisType.Auto,) * 2)
    where = NamedSharding(mesh, PartitionSpec("rows"))
    split = jax.device_put(ARGS[0], NamedSharding(mesh, PartitionSpec("model")))
    found = jax.jit(jc.jacobian(NET, mode="reverse", sharding=where))(split, ARGS[1])
    return {"error": apart(found, jax.jit(jc.jacobian(NET, mode="reverse"))(*ARGS)), "spread": [spec(found)]}


def explicit():
    """A mesh whose axes are a part of arrays' types: no mesh set, arguments of NumPy's, arguments that lie on it."""
    mesh = jax.make_mesh((DEVICES,), ("rows",), axis_types=(AxisType.Explicit,))
    calls = {
        "forward": (jacobian("forward"), ARGS),
        "mixed in chunks": (jacobian("mixed", NET, 64), ARGS),
        "suffixes": (swept(jc.suffix_jacobians, NET), ARGS),
        "batch": (batched(), (ARGS[0], BATCH)),
    }
    found, plain = {}, jax.tree.map(np.asarray, (ARGS, BATCH))
    for name, (make, args) in calls.items():
        want, given = jax.jit(make(None))(*args), plain[0] if args is ARGS else (plain[0][0], plain[1])
        got = [jax.jit(make(mesh))(*args)] if name == "forward" else []
        with jax.set_mesh(mesh):
            laid = jax.device_put(given, NamedSharding(mesh, PartitionSpec()))
            got += [make(mesh)(*laid) if name == "batch" else jax.jit(make(mesh))(*laid)]
            if name == "forward":
                got += [jax.jit(make(mesh))(*given)]
        found[f"explicit {name}"] = {
            "error": max(apart(one, want) for one in got),
            "spread": sorted({str(leaf.sharding.spec).replace(", None)", ")") for leaf in jax.tree.leaves(got)}),
        }
    typed = jax.device_put((DATA, START), NamedSharding(mesh, PartitionSpec()))  # and no mesh is set
    fits = [
        jc.train.fit(loss, start, data, OPTIMIZER, steps=2, sharding=where, progress=False)
        for data, start, where in ((DATA, START, None), (DATA, START, mesh), (*typed, mesh))
    ]
    found["explicit train.fit"] = {"error": max(apart(fit.params, fits[0].params) for fit in fits)}
    args = jax.device_put(plain[0], NamedSharding(mesh, PartitionSpec()))
    sigma = [jc.spectrum(NET, at, of="whole", sharding=where).whole for at, where in ((ARGS, None), (args, mesh))]
    apart_by = apart(jax.jit(jacobian("reverse")(mesh))(*args), jax.jit(jacobian("reverse")(None))(*ARGS))
    found["explicit arguments"] = {"error": max(apart_by, float(np.abs(sigma[0] - sigma[1]).max()))}
    with jax.set_mesh(mesh):
        weights, refused = jnp.ones((8, 8)), []
        for call in (
            lambda: jc.jacobian(lambda x: weights @ x, sharding=mesh)(jnp.ones(8)),
            lambda: jc.train.fit(loss, START, DATA, OPTIMIZER, steps=1, sharding=mesh, progress=False),
        ):
            try:
                call()
            except ValueError as error:
                refused.append(str(error))
    return found | {"explicit refused": {"error": 0.0, "said": refused}}


def leftover():
    """Rows and samples that do not go round."""
    odd = jc.nets.mlp([5, 7, 3])
    args = odd.init(jax.random.key(0)), jnp.arange(5.0)
    want = jax.jit(jc.jacobian(odd, mode="reverse"))(*args)
    ways = [{"mode": "forward"}, {"mode": "reverse", "chunk_size": 2}, {"mode": "mixed"}]
    found = [jax.jit(jc.jacobian(odd, sharding=MESH, **way))(*args) for way in ways]
    found += [jc.jacobian(odd, sharding=MESH)(*args), jc.suffix_jacobians(odd, args, sharding=MESH)[0]]
    try:
        jc.batch_jacobian(jnp.sin, sharding=MESH)(jnp.ones((DEVICES + 1, 2)))
    except ValueError as error:
        return {"error": max(apart(one, want) for one in found), "refused": str(error)}


def lens():
    net = jc.nets.transformer((16, 32, 32), depth=1, heads=2)[:3]
    params = net.init(jax.random.key(0))
    texts = [(params, jax.random.normal(jax.random.key(k), (12, 16))) for k in range(2)]
    fitted, want = (jc.lens.fit(net, texts, skip_first=2, sharding=where) for where in (MESH, None))
    with tempfile.TemporaryDirectory() as folder:
        fitted.save(Path(folder) / "lens.npz")
        written = jc.lens.load(Path(folder) / "lens.npz") if jax.process_index() == 0 else want
    found = fitted.jacobians
    error = max(apart(found, want.jacobians), apart(written.jacobians, want.jacobians))
    return {"error": error, "spread": sorted({spec(leaf) for leaf in found.values()}), "said": str(fitted)}


def spectra():
    """Singular values with matrices, and without."""
    return {
        f"spectrum {name}": {
            "error": max(
                float(np.abs(a.sigma / b.sigma - 1).max())
                for a, b in zip(
                    *(jc.spectrum(*case, **how, sharding=where).rows for where in (MESH, None)), strict=True
                )
            )
        }
        for name, (case, how) in SPECTRA.items()
    }


def spectral_work():
    """A device's share in one layer's matrix, and in a Krylov space."""
    size = TOKENS.size
    runs = {
        "matrix": lambda kind: kind.matrix,
        "krylov": lambda kind: partial(kind.krylov(10, True), draws(size, size, size, size)),
    }
    found = {}
    for name, ((chain, args), _) in SPECTRA.items():
        ours, theirs = (stages_at(chain, args, where)[-1] for where in (SPREAD, None))
        work = (compiled(runs[name](at.kind), at.side, at.state)[1] for at in (ours, theirs))
        found[f"spectrum's {name}"] = {"error": 0.0, **shares(*work)}
    return found


def loss(params, batch):
    return jnp.mean((jax.vmap(TRAINED, (None, 0))(params, batch[0]) - batch[1]) ** 2)


TRAINED = jc.nets.mlp([32, 32, 32], "tanh")
START, OPTIMIZER = TRAINED.init(KEY), optax.sgd(0.01, momentum=0.9)
IMAGES = jax.random.normal(jax.random.key(3), (512 * DEVICES, 32))
DATA = IMAGES, jnp.roll(IMAGES, 1, 0)
FEW = {"data": DATA, "batch_size": 2 * DEVICES, "key": jax.random.key(3)}


def trained():
    """Parameters after some steps: whole on every device, or split as given."""
    split = jax.device_put(START, NamedSharding(MESH, PartitionSpec("rows")))
    ready = [jax.tree.map(lambda leaf: leaf[: 2 * DEVICES], DATA)] * 2
    fit = partial(jc.train.fit, loss, optimizer=OPTIMIZER, steps=3, progress=False)
    found = {}
    for name, start, how in (
        ("all", START, {"data": DATA}),
        ("minibatches", START, FEW),
        ("split parameters", split, FEW),
        ("stream", START, {"data": ready, "observe": lambda info: {"loss": info.loss}}),
    ):
        got, want = fit(start, **how, sharding=MESH), fit(START, **how)
        found[f"train.fit {name}"] = {
            "error": max(apart(got.params, want.params), float(np.abs(got.history.loss - want.history.loss).max())),
            "spread": sorted({spec(leaf) for leaf in jax.tree.leaves((got.params, got.opt_state))}),
        }
    return found


def training_step():
    """A device's share in one step."""
    state = OPTIMIZER.init(START)

    def step(where, *args):
        pick = whole if where is None else Split(whole, where)
        return compiled(lambda at, state, data: update(loss, OPTIMIZER, at, state, pick(data, None))[:3], *args)[1]

    ours = step(SPREAD, *placed((START, state), SPREAD), placed(DATA, SPREAD, 0))
    return {"error": 0.0, **shares(ours, step(None, START, state, DATA))}


def main():
    """All of it on one process; on several what needs numbers that others hold."""
    found = {"lens": lens()} | spectra() | trained()
    if jax.process_count() == 1:
        found |= {name: compare(*call) for name, call in CALLS.items()} | spectral_work() | explicit()
        found |= {fun.__name__: fun() for fun in (parameters_spread, leftover, training_step)}
    return json.dumps(found)


if __name__ == "__main__":
    sys.stdout.write(f"\n{main()}\n")  # libraries write to it, too
