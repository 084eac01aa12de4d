"""Malformed calls: whatever is given for any parameter of any public function works, or is refused in a sentence of ours."""

from __future__ import annotations

import inspect
import linecache
import math
import traceback
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest

import jaxchain as jc
from jaxchain import checks

HOUSE = str(Path(jc.__file__).parent)

NONE, INT, TEXT, NOTHING, INTEGERS = (
    lambda *_: None,
    lambda *_: 3,
    lambda *_: "x",
    lambda *_: (),
    lambda *_: jnp.arange(3),
)

MALFORMED = {
    "text": "x",
    "true": True,
    "fraction": 2.5,
    "nan": math.nan,
    "none": None,
    "negative": -1,
    "zero": 0,
    "huge": 10**30,
    "empty": (),
    "int64": np.int64(5),
    "list": [1.5, "x"],
    "integers": np.arange(3),
    "texts": np.array(["a", "b"]),
    "object": object(),
    "gives none": NONE,
    "gives an int": INT,
    "gives text": TEXT,
    "gives nothing": NOTHING,
    "gives integers": INTEGERS,
}

X = jnp.array([1.0, 2.0, 3.0])
CHAIN = jc.Chain([jc.Stage("sin", jnp.sin), jc.Stage("square", jnp.square)])
NET = jc.nets.mlp([3, 2])
GRAPH = jc.graph(lambda a: jnp.sin(a), X)
FOLDED = jc.graph(jc.Chain([jc.Stage("line", lambda x: 2 * x + 1), jc.Stage("sine", jnp.sin)]), 1.0)
LOCAL = jc.local_jacobians(CHAIN, (X,))
DATA = (jnp.ones((4, 3)), jnp.ones(4))
PAIR = (jnp.ones((4, 3)), jnp.ones((4, 3)))
PREDICTED = jc.signal.predict("tanh", 2, sigma_w=1.0, sigma_b=0.0)
SEQUENCE = jnp.ones((12, 3))
LENS = jc.lens.fit(CHAIN, [(SEQUENCE,)], skip_first=2)
NORMS = {"sin": [1.0, 2.0]}


def loss(params, batch):
    return jnp.mean((batch[0] @ params - batch[1]) ** 2)


def wave(x):
    return jnp.sum(jnp.sin(x))


def squared(z, y):
    return jnp.sum((z - y) ** 2)


def called(make):
    """A function that makes a function, called at ``x`` at once."""
    return lambda x, **how: make(**how)(x)


def at(fun):
    """A function that takes another and its arguments in a row, of one argument ``x``."""
    return lambda fun_, x, **how: fun(fun_, x, **how)


NET_OPTIONS = {"activation": "relu", "init": "he", "sigma_w": 1.0, "sigma_b": 0.0, "dtype": None}

CALLS = {
    "Stage": (jc.Stage, {"name": "sin", "fn": jnp.sin, "init": None}),
    "Chain": (jc.Chain, {"stages": [jc.Stage("sin", jnp.sin)], "sides": None, "argnum": -1}),
    "Chain.init": (NET.init, {"key": jax.random.key(0)}),
    "Chain.merge": (CHAIN.merge, {"first": 0, "last": 1, "name": "both"}),
    "Chain.position": (CHAIN.position, {"name": "sin"}),
    "Chain.call": (lambda x: CHAIN(x), {"x": X}),
    "discover": (at(jc.discover), {"fun_": jnp.sin, "x": X, "argnum": 0, "granularity": "finest", "unroll_limit": 3}),
    "forward_sweep": (
        jc.forward_sweep,
        {"chain": CHAIN, "args": (X,), "tangent": X, "argnum": None, "granularity": None},
    ),
    "reverse_sweep": (
        jc.reverse_sweep,
        {"chain": CHAIN, "args": (X,), "cotangent": X, "argnum": None, "granularity": None},
    ),
    **{
        fun.__name__: (
            fun,
            {"chain": CHAIN, "args": (X,), "argnum": None, "granularity": None, "chunk_size": None} | sharding,
        )
        for fun, sharding in (
            (jc.local_jacobians, {}),
            (jc.prefix_jacobians, {"sharding": None}),
            (jc.suffix_jacobians, {"sharding": None}),
        )
    },
    "spectrum": (
        jc.spectrum,
        {"chain": CHAIN, "args": (X,), "k": 2, "argnum": None, "granularity": None, "of": "whole"}
        | {"in_axes": None, "krylov_steps": 8, "sharding": None},
    ),
    "diagnose": (jc.diagnose, {"chain": CHAIN, "args": (X,), "cotangent": X, "argnum": None, "granularity": None}),
    "locate_nonfinite": (
        jc.locate_nonfinite,
        {"chain": CHAIN, "args": (X,), "argnum": None, "cotangent": X, "granularity": None},
    ),
    "gradient_flow": (
        lambda stages_, **how: jc.gradient_flow(stages=stages_, **how),  # a chain's own stages are another thing
        {"chain": CHAIN, "args": (X,), "cotangent": X, "argnum": None, "granularity": None, "stages_": "sin"}
        | {"histogram": False, "sigma": False},
    ),
    "flow": (
        lambda every, **how: jc.flow(every, **{name.rstrip("_"): value for name, value in how.items()}),
        {"every": 2, "stages__": "dot*", "along_": "0", "granularity": "default", "unroll_limit": 3, "cosine": False}
        | {"histogram": False, "sigma": False, "path_": None, "tensorboard": None, "signal_to_noise": 2},
    ),
    "watch": (
        lambda loss_fn, stages_, **how: jc.watch(loss_fn, stages_, **how)(X, DATA),
        {"loss_fn": loss, "stages_": "dot*", "along": "0", "has_aux": False, "granularity": "default"}
        | {"unroll_limit": 3, "histogram": False, "sigma": False, "keep_gradients": False}
        | {"signal_to_noise": 2},
    ),
    "jacobian": (
        called(jc.jacobian),
        {"fun": CHAIN, "x": X, "argnums": None, "mode": "reverse", "chunk_size": None, "memory_limit": None}
        | {"sharding": None, "has_aux": False, "holomorphic": False},
    ),
    "weight_sites": (
        lambda fun_, *args, **how: jc.weight_sites(fun_, X, DATA, **how),
        {"fun_": loss, "argnum": 0},
    ),
    **{
        fun.__name__: (fun, {"loss": loss, "params": X, "batch": DATA, "check": False, "chunk_size": 2})
        for fun in (jc.sample_gradients, jc.sample_gradient_norms)
    },
    "ggn": (
        jc.ggn,
        {"fun": jnp.multiply, "loss": squared, "params": X, "batch": PAIR, "convex": True, "chunk_size": 2},
    ),
    "fisher": (
        lambda draws_, **how: jc.fisher(draws=draws_, **how),
        {"fun": jnp.multiply, "params": X, "batch": PAIR, "likelihood": "gaussian", "empirical": False, "draws_": 2}
        | {"key": jax.random.key(0), "chunk_size": 2},
    ),
    "gradient_moments": (jc.gradient_moments, {"loss": loss, "params": X, "batch": DATA, "check": False}),
    **{
        fun.__name__: (fun, {"fun": jnp.dot, "params": X, "xs": DATA[0], "ys": DATA[0], "chunk_size": 2} | how)
        for fun, how in {
            jc.ntk: {"outputs": "trace", "mode": "products"},
            jc.ntk_plan: {"outputs": "trace", "mode": "products"},
            jc.ntk_operator: {},
        }.items()
    },
    "batch_jacobian": (
        called(jc.batch_jacobian),
        {"fun": jnp.sin, "x": X, "argnums": 0, "in_axis": 0, "out_axis": 0, "check": True}
        | {"mode": "reverse", "chunk_size": None, "sharding": None},
    ),
    "jacobian_blocks": (
        lambda **how: list(jc.jacobian_blocks(**how)),
        {"fun": jnp.sin, "args": (X,), "argnum": 0, "block": 2, "memory_limit": None, "mode": "reverse"},
    ),
    "jacobian_to_zarr": (
        jc.jacobian_to_zarr,
        {"fun": jnp.sin, "args": (X,), "path": "jacobian.zarr", "argnum": 0, "block": 2, "memory_limit": None}
        | {"mode": "reverse", "progress": False},
    ),
    "plan": (jc.plan, {"fun": jnp.sin, "args": (X,), "argnum": 0, "memory_limit": None}),
    "bracket": (jc.bracket, {"sizes": [3, 1, 3], "edges": [3, 3], "memory_limit": None, "matrix_free": True}),
    "compare_modes": (
        at(jc.compare_modes),
        {"fun_": jnp.sin, "x": X, "argnum": 0, "of": "jacobian", "chunk_size": None, "repeats": 1}
        | {"memory_limit": None, "time_limit": 30.0, "progress": False},
    ),
    "jacobian_diagonal": (called(jc.jacobian_diagonal), {"fun": jnp.sin, "x": X, "argnums": 0}),
    "gram_diagonal": (called(jc.gram_diagonal), {"fun": jnp.sin, "x": X, "argnums": 0}),
    "logdet": (called(jc.logdet), {"fun": jnp.sin, "x": X, "argnums": 0}),
    "jacobian_rows": (called(jc.jacobian_rows), {"fun": jnp.sin, "rows": [0], "x": X, "argnums": 0}),
    "partial_jacobian": (
        jc.partial_jacobian,
        {"chain": CHAIN, "args": (X,), "start": "sin", "stop": "square", "argnum": None},
    ),
    "hvp": (jc.hvp, {"fun": wave, "args": (X,), "v": X, "argnum": 0}),
    "hessian": (jc.hessian, {"fun": wave, "args": (X,), "argnum": 0, "mode": "stages", "chunk_size": None}),
    "hessian_diagonal": (called(jc.hessian_diagonal), {"fun": wave, "x": X, "argnum": 0, "chunk_size": None}),
    "laplacian": (called(jc.laplacian), {"fun": wave, "x": X, "argnum": 0, "weights": None, "chunk_size": None}),
    "curvature": (at(jc.curvature), {"fun_": wave, "x": X, "argnum": 0, "granularity": None}),
    "checkpoint": (called(jc.checkpoint), {"fun": wave, "x": X, "memory_limit": 10**6, "offload": None}),
    "memory_plan": (jc.memory_plan, {"fun": wave, "args": (X,), "memory_limit": 10**6, "offload": None}),
    "trace": (
        at(jc.trace),
        {"fun_": jnp.sin, "x": X, "argnum": 0, "tangent": X, "cotangent": X, "unroll_limit": 3},
    ),
    "graph": (
        at(jc.graph),
        {"fun_": jnp.sin, "x": X, "argnum": 0, "tangent": X, "cotangent": X, "unroll_limit": 3},
    ),
    "Graph.paths": (GRAPH.paths, {"start": "a", "stop": "y"}),
    "Graph.open": (FOLDED.open, {"name": "v2"}),
    "Graph.accumulate": (GRAPH.accumulate, {"direction": "forward"}),
    "transforms": (at(jc.transforms), {"fun_": jnp.sin, "x": X, "argnum": 0, "granularity": None}),
    "report": (
        at(jc.report),
        {
            "fun_": jnp.sin,
            "x": X,
            "path": "report.html",
            "title": None,
            "argnum": 0,
            "granularity": None,
            "tangent": X,
            "cotangent": X,
        }
        | {"inline": False, "force": False, "progress": False},
    ),
    "compare": (
        jc.compare,
        {"a": (jnp.sin, (X,)), "b": (CHAIN, (X,)), "path": "compare.html", "names": ("a", "b"), "title": None}
        | {"argnum": 0, "tangent": X, "cotangent": X, "force": False, "progress": False},
    ),
    "nets.mlp": (jc.nets.mlp, {"sizes": [3, 2], **NET_OPTIONS}),
    "nets.autoencoder": (jc.nets.autoencoder, {"sizes": [3, 2], **NET_OPTIONS}),
    "nets.residual_net": (jc.nets.residual_net, {"sizes": [3, 4, 2], "depth": 1, **NET_OPTIONS, "hidden": 4}),
    "nets.rnn": (jc.nets.rnn, {"sizes": [3, 4, 2], **NET_OPTIONS}),
    "nets.conv_net": (
        jc.nets.conv_net,
        {"image_shape": (4, 4, 1), "channels": [2], "classes": 3, **NET_OPTIONS, "kernel_size": 3, "stride": 1},
    ),
    "nets.transformer": (
        jc.nets.transformer,
        {"sizes": [3, 4, 2], "depth": 1, "heads": 2, **NET_OPTIONS, "hidden": 4},
    ),
    **{
        f"signal.{fun.__name__}": (fun, {"activation": "tanh", "sigma_w": 1.0, "sigma_b": 0.0})
        for fun in (jc.signal.fixed_point, jc.signal.chi, jc.signal.fixed_correlation, jc.signal.depth_scales)
    },
    "signal.critical_line": (jc.signal.critical_line, {"activation": "tanh", "sigma_b": 0.0}),
    "signal.predict": (
        jc.signal.predict,
        {"activation": "tanh", "depth": 2, "sigma_w": 1.0, "sigma_b": 0.0, "length": 1.0, "correlation": 0.0}
        | {"residual": None, "orthogonal": False},
    ),
    "signal.Prediction.of": (PREDICTED.of, {"quantity": "length"}),
    "signal.measure": (
        jc.signal.measure,
        {"chain": NET, "key": jax.random.key(0), "like": None, "draws": 2, "length": 1.0, "correlation": 0.0},
    ),
    "lens.fit": (
        jc.lens.fit,
        {"chain": CHAIN, "inputs": [(SEQUENCE,)], "argnum": None, "until": None, "stages": None, "skip_first": 2}
        | {"mask": None, "chunk_size": None, "sharding": None, "checkpoint_dir": None, "checkpoint_every": 1}
        | {"progress": False},
    ),
    "lens.merge": (lambda one: jc.lens.merge(LENS, one), {"one": LENS}),
    "lens.load": (lambda file: jc.lens.load(file), {"file": "lens.npz"}),
    "lens.logit": (jc.lens.logit, {"state": SEQUENCE, "unembed": jnp.sin}),
    "Lens.apply": (LENS.apply, {"state": SEQUENCE, "stage": "sin", "unembed": jnp.sin}),
    "Lens.check": (LENS.check, {"chain": CHAIN, "args": (SEQUENCE,), "argnum": None}),
    "Lens.states": (LENS.states, {"chain": CHAIN, "args": (SEQUENCE,), "argnum": None}),
    "Lens.save": (LENS.save, {"path": "lens.npz"}),
    "train.fit": (
        jc.train.fit,
        {"loss": loss, "params": X, "data": DATA, "optimizer": optax.sgd(0.1), "steps": 2, "batch_size": 2}
        | {"key": jax.random.key(0), "observe": None, "observe_every": 1, "sharding": None, "progress": False}
        | {"checkpoint_dir": None, "checkpoint_every": 1, "keep": 1},
    ),
    "plot.matrix": (
        jc.plot.matrix,
        {"matrix": np.eye(2), "ax": None, "title": None, "in_label": "in", "out_label": "out", "clip": 99.0}
        | {"colorbar": True},
    ),
    "plot.chain": (jc.plot.chain, {"jacobians": LOCAL, "ax": None, "product": True, "title": None}),
    "plot.singular_values": (
        jc.plot.singular_values,
        {"jacobians": LOCAL, "part": "stages", "ax": None, "title": None},
    ),
    "plot.gradient_flow": (
        jc.plot.gradient_flow,
        {"flow": jc.gradient_flow(NET, (NET.init(jax.random.key(0)), X)), "what": "state", "ax": None, "title": None},
    ),
    "plot.gradient_norms": (
        jc.plot.gradient_norms,
        {"steps": [0, 1], "norms": NORMS, "ax": None, "title": None, "xlabel": "x", "ylabel": "y"},
    ),
    "plot.norms_by_depth": (
        jc.plot.norms_by_depth,
        {"cases": NORMS, "theory": None, "ax": None, "title": None, "xlabel": "x", "ylabel": "y"},
    ),
    "plot.cost_curves": (
        jc.plot.cost_curves,
        {"sizes": [1, 2], "forward": [1, 2], "reverse": [1, 2], "theory_forward": None, "theory_reverse": None}
        | {"crossing": None, "ax": None, "title": None, "xlabel": "x", "ylabel": "y"},
    ),
    "plot.curvature": (jc.plot.curvature, {"found": jc.curvature(wave, X), "ax": None, "title": None}),
    "plot.memory_tradeoff": (jc.plot.memory_tradeoff, {"plan": jc.memory_plan(wave, (X,)), "ax": None, "title": None}),
    "plot.graph": (jc.plot.graph, {"graph": GRAPH, "paths": None, "title": None, "ax": None}),
    "plot.animate": (
        jc.plot.animate,
        {"what": GRAPH, "path": "film.gif", "direction": "forward", "seconds": 1.0},
    ),
    "plot.signal": (
        jc.plot.signal,
        {"theory": PREDICTED, "measured": None, "quantity": "gradient", "ax": None, "title": None},
    ),
    "plot.save": (jc.plot.save, {"figure": None, "path": "figure.png"}),
}

RETURNS = [kind for kind in MALFORMED if kind.startswith("gives")]
POSITIONS = ["none", "negative", "zero"]
SCALES = ["fraction", "zero", "huge", "int64"]

MEANT = {
    "name": ["text", "none"],
    "title": ["text", "none"],
    "in_label": ["text"],
    "out_label": ["text"],
    "xlabel": ["text"],
    "ylabel": ["text"],
    "path": ["text"],
    "fn": RETURNS,  # called with a state, not here
    "init": ["none", *RETURNS],
    "activation": RETURNS,  # any function of one array; called with a state, not here
    "sides": ["none", *RETURNS],
    "argnum": [*POSITIONS, "huge", "int64"],  # of a chain it is told when the chain is called
    "argnums": POSITIONS,
    "first": POSITIONS[1:],
    "last": POSITIONS[1:],
    "in_axis": POSITIONS[1:],
    "out_axis": POSITIONS[1:],
    "x": [
        "fraction",
        "nan",
        "true",
        "negative",
        "zero",
        "int64",
        "integers",
    ],  # numbers; whether real ones is asked below
    "weights": ["none", "integers"],
    "unroll_limit": ["zero", "huge", "int64"],
    "chunk_size": ["none", "huge", "int64"],
    "block": ["none", "huge", "int64"],
    "memory_limit": ["none", "zero", "huge", "int64"],  # in `bracket` none may be recorded
    "offload": ["none", *SCALES],
    "sharding": ["none"],
    "granularity": ["none"],
    "until": ["none"],
    "stages": ["none"],
    "skip_first": ["zero", "int64"],
    "mask": ["none"],
    "checkpoint_dir": ["none", "text"],
    "checkpoint_every": ["huge", "int64"],
    "unembed": ["none", *RETURNS],  # of the logit lens it is asked in tests/lens
    "paths": ["none"],
    "seconds": SCALES,
    "tangent": ["none"],
    "cotangent": ["none"],
    "batch_size": ["none"],
    "observe": ["none", *RETURNS],
    "observe_every": ["huge", "int64"],
    "keep": ["int64"],
    "every": ["huge", "int64"],
    "signal_to_noise": ["none", "huge", "int64"],  # a batch that it does not divide is told of when called
    "tensorboard": ["text", "none"],
    "repeats": ["huge", "int64"],
    "steps": ["int64"],
    **{name: ["none"] for name in ["k", "of", "in_axes"]},
    "krylov_steps": ["none", "int64"],
    "ys": ["none"],
    "stages_": ["none"],
    "stages__": ["none", "text"],  # told when it is called, as what follows
    "along_": ["none", "text"],
    "path_": ["none", "text"],
    "along": ["none"],
    "rows": ["negative", "zero", "empty", "integers"],
    "sizes": ["integers"],
    "edges": ["integers"],
    "dtype": ["none"],
    "sigma_w": ["none", *SCALES],
    "sigma_b": SCALES,
    "crossing": ["none", *SCALES],
    "length": SCALES,
    "correlation": ["negative", "zero"],
    "residual": ["none", *SCALES],
    "draws": ["int64"],
    "draws_": ["none", "huge", "int64"],  # nothing is drawn before it is asked for
    "like": ["none"],
    "measured": ["none"],
    "time_limit": ["none", *SCALES],
    "clip": ["fraction", "int64"],
    "ax": ["none"],
    "theory": ["none"],
    "theory_forward": ["none"],
    "theory_reverse": ["none"],
    **{name: ["none", "int64"] for name in ["hidden", "depth", "classes", "kernel_size", "stride"]},
    **{
        name: ["true"]
        for name in [
            "check",
            "histogram",
            "sigma",
            "keep_gradients",
            "cosine",
            "orthogonal",
            "matrix_free",
            "force",
            "inline",
            "progress",
            "product",
            "colorbar",
            "convex",
            "empirical",
        ]
    },
}
"""By parameter: what may be given for it. That it works is other tests' business, and takes their time."""

OTHERS_WORDS = {
    ("Chain.call", "x"): "A chain that is called is its functions called: what they say is the caller's.",
    ("jacobian_rows", "x"): "The function is called to see what it returns, and says itself what it cannot take.",
    ("train.fit", "params"): "The loss is called with any parameters, and says itself what it cannot take.",
    ("train.fit", "data"): "So it is with any data.",
    ("ggn", "params"): "Whatever can be multiplied by the samples can be parameters here.",
    ("fisher", "params"): "So it is here.",
    **{
        (name, parameter): "The loss is traced with them, and says itself what it cannot take."
        for name in ("sample_gradients", "sample_gradient_norms", "gradient_moments")
        for parameter in ("params", "batch")
    },
    **{
        (name, parameter): "So is a function of one sample."
        for name in ("ntk", "ntk_plan", "ntk_operator")
        for parameter in ("params", "xs")
    },
}
"""Where a function of the caller's is called, and says what is wrong."""

FUNCTIONS = ["fun", "fun_", "chain", "loss", "loss_fn"]
"""Parameters that are functions: of these alone it matters what they return."""

ZERO_DERIVATIVE = ["gives an int", "gives integers"]
"""Constants: there is a chain, a trace, and a warning that its derivative is zero."""


def asked(parameter, kind):
    if kind in MEANT.get(parameter, ()):
        return False
    if parameter in FUNCTIONS:
        return kind not in ZERO_DERIVATIVE
    return not kind.startswith("gives") or kind == "gives none"


CASES = [
    (name, parameter, kind)
    for name, (_, good) in CALLS.items()
    for parameter in good
    for kind in MALFORMED
    if asked(parameter, kind) and (name, parameter) not in OTHERS_WORDS
]


def judged(name, parameter, kind):
    """``ok`` where the call works, ``clear`` where it is refused in a sentence of ours, else what was raised."""
    function, good = CALLS[name]
    if name == "plot.save" and parameter != "figure":
        good = good | {"figure": plt.figure()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function(**{**good, parameter: MALFORMED[kind]})
        except Exception as error:
            return "clear" if is_ours(error) else f"{type(error).__name__}: {str(error)[:100]}"
        finally:
            plt.close("all")
    return "ok"


def is_ours(error):
    """Whether a line of jaxchain says ``raise``: what Python or JAX say of our own lines is raised without."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(frame.filename, frame.lineno).strip()
    return frame.filename.startswith(HOUSE) and line.startswith("raise")


@pytest.mark.parametrize("name", CALLS)
def test_what_is_malformed_is_refused_in_a_sentence_of_ours(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {case[1:]: judged(*case) for case in CASES if case[0] == name}
    assert {case: said for case, said in found.items() if said != "clear"} == {}


def test_every_public_function_is_asked_about_all_of_its_parameters():
    missing = set[str]()
    for name in jc.__all__:
        public = getattr(jc, name)
        if inspect.isfunction(public):
            parameters = {
                p.name for p in inspect.signature(public).parameters.values() if p.kind is not p.VAR_POSITIONAL
            }
            asked_of = {parameter.rstrip("_") for parameter in CALLS[name][1]}
            missing |= {f"{name}: {parameter}" for parameter in parameters - asked_of}
    assert not missing


@pytest.mark.parametrize("kind", ["true", "negative", "int64", "integers"])
@pytest.mark.parametrize(
    "name",
    [
        "discover",
        "jacobian",
        "batch_jacobian",
        "compare_modes",
        "jacobian_diagonal",
        "gram_diagonal",
        "jacobian_rows",
        "logdet",
        "hessian_diagonal",
        "laplacian",
    ],
)
def test_integers_have_no_derivative(name, kind):
    assert judged(name, "x", kind) == "clear"


@pytest.mark.parametrize("path", [None, 3, b"page.html", "", "a\0b", "x" * 5000])
@pytest.mark.parametrize(
    "write", [lambda path: jc.report(jnp.sin, X, path=path), lambda path: jc.plot.save(plt.figure(), path)]
)
def test_a_path_that_is_none_is_refused_before_anything_is_computed(write, path):
    with pytest.raises((TypeError, ValueError), match=r"^path is the file to write"):
        write(path)
    plt.close("all")


def test_a_link_to_itself_is_no_path(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(ValueError, match=r"path is the file to write, .* cannot be opened"):
        jc.report(jnp.sin, X, path=loop)


# ---------------------------------------------------------------------------------------------- nothing huge by accident

WIDE = jnp.ones(40_000)


def dense(x):
    return jnp.cumsum(jnp.sin(x))[::-1] * x


HUGE = {
    **{
        f"jacobian {mode}": lambda mode=mode: jc.jacobian(dense, mode=mode)(WIDE)
        for mode in ("auto", "forward", "reverse", "mixed")
    },
    "jacobian in chunks": lambda: jc.jacobian(dense, chunk_size=8)(WIDE),
    "local_jacobians": lambda: jc.local_jacobians(dense, (WIDE,)),
    "prefix_jacobians": lambda: jc.prefix_jacobians(dense, (WIDE,)),
    "suffix_jacobians": lambda: jc.suffix_jacobians(dense, (WIDE,)),
    "partial_jacobian": lambda: jc.partial_jacobian(jc.Chain([jc.Stage("dense", dense)]), (WIDE,), "input", "dense"),
    "jacobian_diagonal": lambda: jc.jacobian_diagonal(dense)(WIDE),
    "logdet": lambda: jc.logdet(dense)(WIDE),
    "gram_diagonal": lambda: jc.gram_diagonal(dense)(WIDE),
    "jacobian_rows": lambda: jc.jacobian_rows(dense, np.arange(40_000))(WIDE),
    "batch_jacobian": lambda: jc.batch_jacobian(jnp.sin)(WIDE.reshape(10, 4000).repeat(10, 0)),
    "compare_modes": lambda: jc.compare_modes(dense, WIDE),
}


@pytest.mark.parametrize("name", HUGE)
def test_what_is_huge_is_refused_with_its_size_and_the_way_out(name):
    with pytest.raises(
        ValueError, match=r"takes [\d.]+ GB; above 4.29 GB none is made unasked.*jc.jacobian_rows.*ask "
    ):
        HUGE[name]()


def test_what_is_huge_is_planned_and_traced():
    assert jc.plan(dense, (WIDE,)).sizes[0] == WIDE.size
    assert jax.eval_shape(jc.jacobian(dense), WIDE).shape == (WIDE.size, WIDE.size)
    assert jax.eval_shape(lambda: jc.suffix_jacobians(dense, (WIDE,)))[0].shape == (WIDE.size, WIDE.size)


def test_a_diagonal_that_needs_no_matrix_is_of_any_size():
    np.testing.assert_allclose(jc.jacobian_diagonal(jnp.sin)(WIDE), jnp.cos(WIDE), rtol=1e-6)


def test_what_was_asked_for_is_made(monkeypatch):
    monkeypatch.setattr(checks, "UNASKED", 35)
    with pytest.raises(ValueError, match="memory_limit=36"):
        jc.jacobian(dense)(X)
    want = jax.jit(jax.jacrev(dense))(X)
    for made in (jc.jacobian(dense, memory_limit=10**6)(X), jax.jit(jc.jacobian(dense))(X)):
        np.testing.assert_allclose(made, want, rtol=1e-6)
    assert jc.compare_modes(dense, X, repeats=1, memory_limit=36)["auto"].max_error < 1e-5
