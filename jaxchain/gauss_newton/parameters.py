"""`ggn` and `fisher`: curvature in all parameters, as operators. Here is what they are given, checked and read.

Both are (1/B) Σ_b J_bᵀ H_b J_b; they differ in H: a loss's Hessian at the output, or what a likelihood of the outputs
expects of the score times itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_flatten_with_path

from jaxchain.checks import check_function, check_inexact, check_result, flag, integer, random_key, shown, word
from jaxchain.coordinates import is_real_number
from jaxchain.errors import ModeError
from jaxchain.factored.axis import one_of, samples_in
from jaxchain.factored.batch import WAY_OUT, check_params
from jaxchain.factored.function import Factored
from jaxchain.gauss_newton.bending import Bending, of_draws, of_family, of_gradient, of_loss
from jaxchain.gauss_newton.likelihoods import LIKELIHOODS, Family
from jaxchain.gauss_newton.operators import GaussNewton
from jaxchain.gauss_newton.parts import parts
from jaxchain.program.reading import abstract, trace_program
from jaxchain.show.shapes import describe

__all__ = ["fisher", "ggn"]


def ggn(
    fun: Callable[[Any, Any], Any],
    loss: Callable[[Any, Any], jax.Array],
    params: Any,
    batch: Any,
    *,
    convex: bool = True,
    chunk_size: int | None = None,
) -> GaussNewton:
    """The generalised Gauss–Newton matrix of a loss in all parameters, G = (1/B) Σ_b J_bᵀ H_b J_b, as a linear operator.

    J_b is the Jacobian of fun(params, x_b), H_b the Hessian of loss(z, y_b) at z = fun(params, x_b). Nothing is
    computed before something is asked for; call it under ``jax.jit`` to compile what is.

    Parameters
    ----------
    fun
        Of parameters and one sample, the outputs: any pytree of real arrays.
    loss
        Of one sample's outputs and its y, one real number, twice differentiable.
    params
        A pytree of real arrays, n numbers together.
    batch
        ``(xs, ys)``, pytrees of arrays with the samples along their first axis; ``(xs, None)`` where the loss reads no y.
    convex
        Refuse a loss that is seen not to be convex in the outputs, where G is not positive semidefinite (outside
        ``jit``, and when more than products with vectors are asked for). ``False``: take it as it is.
    chunk_size
        How many samples go through at once; default: all. Bounds memory, not the result.

    Returns
    -------
    GaussNewton
        ``G(v)`` and ``G @ v`` for a pytree like ``params`` or a flat vector (n,), ``.diagonal()``, ``.trace()``, ``.dense()``,
        ``.solve(v, damping)``, ``.kronecker()``. For a loss whose Hessian has coinciding eigenvalues JAX has no derivative
        of its eigenvectors, and so the derivative of what is made of them is NaN; `fisher` has closed forms. A custom
        VJP that is no derivative, such as one that clips cotangents, makes no matrix: products are then those of the rule.

    Raises
    ------
    TypeError
        If the loss is no real number, outputs or parameters are not real floating point, or the batch is no pair.
    ValueError
        If there are no samples, or leaves disagree in how many; from the operator, if the loss is not convex.
    ModeError
        If there is no reverse mode of ``fun``; from the operator, if there is no second derivative of the loss.

    References
    ----------
    Schraudolph, Fast curvature matrix-vector products for second-order gradient descent, Neural Computation 14 (7), 2002.

    Examples
    --------
    >>> def model(w, x):
    ...     return jnp.tanh(x @ w)
    >>> xs, ys = jnp.array([[1.0, 2.0], [0.5, 0.0]]), jnp.array([[1.0], [0.0]])
    >>> G = jc.ggn(model, lambda z, y: jnp.sum((z - y) ** 2), jnp.array([[0.1], [0.2]]), (xs, ys))
    >>> G
    <Gauss–Newton matrix of 2 × 2, the mean over 2 samples>
    >>> jnp.allclose(jnp.diag(G.dense()), G.diagonal().ravel()).item(), jnp.allclose(jnp.trace(G.dense()), G.trace()).item()
    (True, True)
    """
    check_function(loss, "ggn: its loss")
    function, params, xs, ys, count = _read(fun, params, batch, "ggn")
    made = trace_program(loss, (function.out, one_of(ys)))[1]
    if not is_real_number(made):
        msg = f"ggn needs a loss that is one real number for one sample, but loss(z, y) returns {describe(made)} for z {describe(function.out)}. Take its sum over outputs."
        raise TypeError(msg)
    return _operator("Gauss–Newton matrix", fun, function, (params, xs, ys, count), of_loss(loss), convex, chunk_size)


def fisher(
    fun: Callable[[Any, Any], Any],
    params: Any,
    batch: Any,
    likelihood: str | Callable[[Any, Any], jax.Array] = "categorical",
    *,
    empirical: bool = False,
    draws: int | None = None,
    key: jax.Array | None = None,
    chunk_size: int | None = None,
) -> GaussNewton:
    """Fisher's information of a model in all parameters, F = (1/B) Σ_b J_bᵀ E[s sᵀ] J_b, as a linear operator.

    s = ∂ log p(y | z)/∂z is the score at the outputs z = fun(params, x_b), whose expectation over what the model
    itself says of y is known in closed form; so that F is the Gauss–Newton matrix of the negative log-likelihood.

    Parameters
    ----------
    fun
        Of parameters and one sample, the outputs: one real array of natural parameters.
    params
        A pytree of real arrays.
    batch
        ``(xs, ys)``, as for `ggn`; only the empirical one reads ys, for others ``(xs, None)`` will do.
    likelihood
        ``"categorical"``: logits of classes along the last axis, y the numbers of classes; ``"gaussian"``: means, of
        variance one; ``"bernoulli"``: log-odds; ``"poisson"``: logarithms of rates. Entries, or positions, are independent.
        Of the empirical one also any function (z, y) → −log p(y | z).
    empirical
        The mean of gᵀg with g each sample's own gradient, at the y that it has, which is not Fisher's information.
    draws
        Instead of the expectation so many y drawn for each sample, with ``key``: as many backward passes.
    key
        A random key.
    chunk_size
        How many samples go through at once.

    Returns
    -------
    GaussNewton
        As of `ggn`.

    Raises
    ------
    TypeError, ValueError
        As `ggn`; and if outputs, y or the likelihood do not belong together.

    References
    ----------
    Amari, Natural gradient works efficiently in learning, Neural Computation 10 (2), 1998; Kunstner, Balles and Hennig,
    Limitations of the empirical Fisher approximation, NeurIPS 2019, arXiv 1905.12558.

    Examples
    --------
    >>> xs = jnp.array([[1.0, 2.0], [0.5, 0.0]])
    >>> F = jc.fisher(lambda w, x: x @ w, jnp.zeros((2, 3)), (xs, None))
    >>> (9 * F.diagonal()).round().tolist()
    [[1.0, 1.0, 1.0], [4.0, 4.0, 4.0]]
    >>> F.kronecker().blocks[0].left.tolist()
    [[[0.625, 1.0], [1.0, 2.0]]]
    """
    flag("empirical", empirical)
    draws = integer("draws", draws, "how many y are drawn for each sample", least=1, optional=True)
    function, params, xs, ys, count = _read(fun, params, batch, "fisher")
    family = _family(likelihood, function, empirical=empirical)
    name = "Fisher information"
    if empirical:
        name, bending = "empirical Fisher matrix", _of_own(family, likelihood, function, ys)
    elif draws is None:
        assert family is not None
        bending = of_family(family)
    else:
        assert family is not None
        name, bending, ys = f"Fisher information of {draws} draws", of_draws(family, draws), _keys(key, count)
    return _operator(name, fun, function, (params, xs, ys, count), bending, True, chunk_size)


def _operator(
    name: str, fun: Any, function: Factored, given: tuple[Any, ...], bending: Bending, convex: Any, chunk_size: Any
) -> GaussNewton:
    params, xs, ys, count = given
    what = "how many samples go through at once"
    size = integer("chunk_size", chunk_size, what, least=1, optional=True)
    like = one_of(xs)
    return GaussNewton(
        name, fun, function, params, xs, ys, count, parts(function, params, like), bending, flag("convex", convex), size
    )


def _read(fun: Any, params: Any, batch: Any, caller: str) -> tuple[Factored, Any, Any, Any, int]:
    """The function of one sample, read; parameters and samples as arrays; and how many samples there are."""
    check_function(fun, caller)
    check_params(params)
    _check_real(params, "A leaf of params", "Split off what is not differentiated and close over it.")
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        msg = f"batch is the pair (xs, ys) of samples and what belongs to them, (xs, None) where nothing does, but {shown(batch)} was given."
        raise TypeError(msg)
    count = samples_in(tuple(batch))
    if not count:
        msg = f"{caller} is a mean over samples, but the batch has none."
        raise ValueError(msg)
    params, (xs, ys) = jax.tree.map(jnp.asarray, (params, tuple(batch)))
    if not jax.tree.leaves(xs):
        msg = "The xs of the batch hold no array, so there are no samples."
        raise TypeError(msg)
    function = Factored.of(fun, (abstract(params), one_of(xs)))
    if stages := function.whiles:
        msg = f"There is no reverse mode for fun, whose stage {stages[0]!r} loops for as long as a condition holds. {WAY_OUT}"
        raise ModeError(msg)
    check_result(function.out)
    _check_real(function.out, "An output of fun", "Return only what the loss is to be differentiated by.")
    return function, params, xs, ys, count


def _check_real(tree: Any, place: str, way_out: str) -> None:
    check_inexact(tree, place)
    for path, leaf in tree_flatten_with_path(tree)[0]:
        if jnp.iscomplexobj(leaf):
            msg = f"{place}{f' at {keystr(path)}' if path else ''} is complex, and this curvature is of real numbers. Give real and imaginary parts. {way_out}"
            raise TypeError(msg)


def _family(likelihood: Any, function: Factored, *, empirical: bool) -> Family | None:
    """The family by its name; ``None`` for a function."""
    if callable(likelihood):
        if not empirical:
            msg = "Of a likelihood that is a function no expectation is known. Give its name, pass empirical=True, or take jc.ggn, which is the Fisher information where outputs are natural parameters."
            raise TypeError(msg)
        return None
    family = LIKELIHOODS[word("likelihood", likelihood, list(LIKELIHOODS))]
    out = function.out
    classes = likelihood != "categorical" or (
        isinstance(out, jax.ShapeDtypeStruct) and out.ndim > 0 and out.shape[-1] > 0
    )
    if not isinstance(out, jax.ShapeDtypeStruct) or not classes:
        wanted = "logits of classes along its last axis" if likelihood == "categorical" else "natural parameters"
        msg = f"The {likelihood} likelihood is of one array, {wanted}, but fun returns {describe(out)}. Return that array alone; jc.ggn takes any pytree, with a loss of it."
        raise TypeError(msg)
    return family


def _of_own(family: Family | None, likelihood: Any, function: Factored, ys: Any) -> Bending:
    """The empirical one: of the y that the batch has."""
    out = function.out
    if family is None:
        made = trace_program(likelihood, (out, one_of(ys)))[1]
        if not is_real_number(made):
            msg = f"A likelihood that is a function returns one real number for one sample, −log p(y | z), but this one returns {describe(made)}."
            raise TypeError(msg)
        return of_gradient(likelihood)
    shape = family.shape(out.shape)
    if not hasattr(ys, "shape") or ys.shape[1:] != shape:
        msg = f"The empirical Fisher matrix reads ys: for outputs {describe(out)} each is of shape {shape}, but {describe(one_of(ys))} was given."
        raise ValueError(msg)
    return of_gradient(lambda z, y: family.partition(z) - jnp.sum(family.statistic(y, z) * z))


def _keys(key: Any, count: int) -> jax.Array:
    """A key for each sample."""
    return jax.random.split(random_key(key), count)
