"""Other libraries that compute Jacobians, where they are installed and work: asdex, sparsejac, torch.func."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.experimental import sparse

import jaxchain as jc
from bench.core import Row, in_turns, race
from bench.models import AUTOENCODER, of_net, sparse_cases


def importable(name: str) -> Any:
    """A module, or ``None``, with a line that says why."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"  {name} cannot be imported here ({error}): skipped.")
        return None


def sparse_peers(seed: int, quick: bool) -> Iterable[Row]:
    """Sparse Jacobians by asdex and by sparsejac, called by hand with the pattern ready: time of a call."""
    asdex, sparsejac = importable("asdex"), importable("sparsejac")
    for name, (fun, x) in sparse_cases(seed, 16 if quick else 64).items() if asdex else ():
        coloring = asdex.jacobian_coloring(fun, x)
        m, n = coloring.sparsity.shape
        racing: dict[str, Callable[..., Any]] = {
            "ours": lambda x, f=fun, shape=(m, n): jc.jacobian(f)(x).reshape(shape),
            "asdex": lambda x, f=fun, c=coloring, s=(m, n): asdex.jacobian_from_coloring(f, c, "dense")(x).reshape(s),
        }
        if sparsejac:
            pattern = sparse.BCOO.from_scipy_sparse(scipy_pattern(coloring))
            flat = lambda v, f=fun, like=x: f(v.reshape(like.shape)).ravel()  # noqa: E731
            by_rows = sparsejac.jacrev(flat, pattern)  # here, not under jit: it colours with scipy
            racing["sparsejac"] = lambda x, f=by_rows: f(x.ravel()).todense()
        seconds = race(racing, x, repeats=5 if quick else 40)
        yield Row(f"{name}: time / asdex by hand", seconds["ours"], seconds["asdex"], "s", at_most=1.2)
        if sparsejac:
            yield Row(f"{name}: time / sparsejac", seconds["ours"], seconds["sparsejac"], "s", at_most=1.2)


def scipy_pattern(coloring: Any) -> Any:
    """Asdex's pattern as a scipy matrix of ones."""
    from scipy.sparse import csr_matrix

    rows, columns = coloring.sparsity.rows, coloring.sparsity.cols
    return csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=coloring.sparsity.shape)


def torch_func(seed: int, quick: bool) -> Iterable[Row]:
    """The autoencoder's Jacobian by torch.func.jacrev and jacfwd, eager as it is used: time of a call."""
    torch = importable("torch")
    if torch is None:
        return
    net, (params, x) = of_net(jc.nets.autoencoder(AUTOENCODER), (AUTOENCODER[0],), seed)
    layers = [
        (torch.tensor(np.array(p["w"])), torch.tensor(np.array(p["b"])))
        for p in jax.tree.leaves(params, is_leaf=is_layer)
    ]

    def forward(x: Any) -> Any:
        for k, (w, b) in enumerate(layers):
            x = w @ (x if k == 0 else torch.tanh(x)) + b
        return x

    there, ours = torch.tensor(np.array(x)), jax.jit(jc.jacobian(net, 1)).lower(params, x).compile()
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours(params, x),
        "jacrev": lambda: torch.func.jacrev(forward)(there) is None,
        "jacfwd": lambda: torch.func.jacfwd(forward)(there) is None,
    }
    gap = np.abs(np.asarray(calls["ours"]()) - torch.func.jacrev(forward)(there).numpy()).max()
    yield Row("autoencoder: gap to torch.func", float(gap), None, "", at_most=1e-4)
    seconds = in_turns(calls, 3 if quick else 20)
    peer = min(seconds["jacrev"], seconds["jacfwd"])
    yield Row("autoencoder: time, torch.func eager", seconds["ours"], peer, "s", at_least_less=7)


def torch_lens(seed: int, quick: bool) -> Iterable[Row]:
    """The Jacobian lens of a transformer, and the published estimator's sweep in torch: copies of a sample, eager."""
    torch = importable("torch")
    if torch is None:
        return
    width, depth, heads, positions, skip, copies = 128, 6, 4, 64, 16, 32
    net = jc.nets.transformer((width, width, width), depth, heads)
    params, x = net.init(jax.random.key(seed)), jax.random.normal(jax.random.key(seed + 1), (positions, width))
    there = jax.tree.map(lambda leaf: torch.tensor(np.array(leaf)), params)
    valid = torch.arange(positions).ge(skip) & torch.arange(positions).lt(positions - 1)

    def affine(p: Any, h: Any) -> Any:
        return torch.nn.functional.linear(h, p["w"], p["b"])

    def norm(p: Any, h: Any) -> Any:
        return torch.nn.functional.rms_norm(h, (width,), p["scale"], eps=1e-6)

    def block(k: int, h: Any) -> Any:
        mixing, mlp = there[f"attention_{k}"], there[f"mlp_{k}"]
        qkv = affine(mixing["qkv"], norm(mixing, h)).reshape(-1, positions, 3, heads, width // heads)
        mixed = torch.nn.functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4), is_causal=True)
        h = h + affine(mixing["out"], mixed.transpose(1, 2).reshape(-1, positions, width))
        return h + affine(mlp["down"], torch.nn.functional.gelu(affine(mlp["up"], norm(mlp, h))))

    inside = net[1:-2]
    start = net[:1](params, x)

    def estimator() -> list[Any]:
        states = [torch.tensor(np.array(start)).repeat(copies, 1, 1).requires_grad_()]
        for k in range(depth):
            states.append(block(k, states[-1]))
        found: list[list[Any]] = [[] for _ in range(depth)]
        for first in range(0, width, copies):
            cotangent = torch.zeros_like(states[-1])
            for k in range(copies):
                cotangent[k, valid, first + k] = 1
            for rows, pulled in zip(
                found, torch.autograd.grad(states[-1], states[:-1], cotangent, retain_graph=True), strict=True
            ):
                rows.append(pulled[:, valid].mean(1))
        return [torch.cat(rows) for rows in found]

    def ours() -> Any:
        return jc.lens.fit(inside, [(params, start)], skip_first=skip, stages=["input", "mlp_*"]).jacobians

    gap = np.abs(np.asarray(ours()["input"]) - estimator()[0].numpy()).max()
    yield Row("Jacobian lens: gap to torch", float(gap), None, "", at_most=1e-5)
    seconds = in_turns({"ours": ours, "torch": estimator}, 1 if quick else 7)
    yield Row("Jacobian lens, 6 blocks: time, torch eager", seconds["ours"], seconds["torch"], "s", at_least_less=2.5)


def is_layer(node: Any) -> bool:
    """Whether a node of a pytree of parameters is one layer's weights and bias."""
    return isinstance(node, dict) and "w" in node and not isinstance(node["w"], dict)


BENCHMARKS = (sparse_peers, torch_func, torch_lens)
