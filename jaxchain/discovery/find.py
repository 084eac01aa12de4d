"""`discover`: any pure JAX function as the chain that it already is."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_args

import jax

from jaxchain.arguments import position_among
from jaxchain.chain import Chain
from jaxchain.checks import check_function, check_inexact, check_result, integer, word
from jaxchain.collector import uncollected
from jaxchain.discovery.group import Granularity, group
from jaxchain.discovery.name import names
from jaxchain.discovery.stage import bundles, chain_stages, split_after, split_at_cuts
from jaxchain.discovery.start import all_integers, first_state, way_to
from jaxchain.errors import warn
from jaxchain.program.fingerprint import mark_of, same_arrays
from jaxchain.program.flat import Equation, Program
from jaxchain.program.flatten import flatten, unrolled
from jaxchain.program.flow import active, reach
from jaxchain.program.primitives import (
    Atom,
    ClosedJaxpr,
    Var,
    any_equation_of,
    is_var,
    like,
    only_prints,
    pruned,
)
from jaxchain.program.reading import trace_program
from jaxchain.program.segment import Segment, computing, fits
from jaxchain.program.source import is_foreign
from jaxchain.show.shapes import describe
from jaxchain.stage import Side, Stage

__all__ = ["discover"]

UNROLL_LIMIT = 64


def discover(
    fun: Callable[..., Any],
    *args: Any,
    argnum: int | None = None,
    granularity: Granularity = "default",
    unroll_limit: int = UNROLL_LIMIT,
) -> Chain:
    """Find the chain that a pure JAX function already is.

    The function is traced once. Wherever exactly one value that depends on the chain input is
    still needed, the program is cut; what lies between two cuts is a stage. Everything else that a
    stage reads (other arguments, values computed from them) is a side input; arrays that the
    function closed over are constants. A rematerialised call (``jax.checkpoint``) that is cut stays
    rematerialised between its cuts; the states at the cuts are kept, as those of a sweep are.

    Parameters
    ----------
    fun
        Any function that JAX can trace: plain, jitted, an Equinox module, a Flax or Haiku
        ``apply``.
    args
        Its positional arguments, as arrays or ``jax.ShapeDtypeStruct``; the chain is for their
        shapes.
    argnum
        Which argument is the chain input; default: the last, or of a chain its own. A pytree is one state. Integers,
        such as tokens, have no derivative: along them the chain begins at the first floating-point value that
        everything after depends on them through, mostly their embedding; what is made of them without any array of
        numbers, such as a mask of padding, is a side input.
    granularity
        ``"finest"``: one stage a cut. ``"default"``: a bias joins its product, a reshape what reads
        it, the parts of one library call or loop step each other; where all states are single numbers, no operation
        on them joins another. ``"module"``: neighbours of the
        same module are joined too. ``"bundles"``: as the default, but cut also where several values cross, if
        together they are fewer numbers than what crosses on either side of there.
    unroll_limit
        A ``scan`` or static ``fori_loop`` whose carry is the chain value becomes one stage a step,
        up to this many steps; a longer one stays one stage.

    Returns
    -------
    Chain
        Takes the arguments of ``fun`` and returns its result. ``print`` it; see `Chain.merge`.

    Raises
    ------
    TypeError
        If ``fun`` is not a function that JAX can trace, has side effects (names the equation and
        the line), or an argument is not made of arrays; if the chain input is integers, and no floating-point value
        cuts their way to the result (says what crosses).
    ValueError
        If ``argnum`` or ``granularity`` is unknown.

    Warns
    -----
    UserWarning
        If the result does not depend on the chain input, or only through integers: its derivative
        is zero. If what is printed (`jax.debug.print`) is known in no single stage: the chain does without it.

    References
    ----------
    Lengauer and Tarjan, A fast algorithm for finding dominators in a flowgraph, TOPLAS 1979;
    Griewank and Walther, Evaluating Derivatives, 2nd ed., ch. 9 and 10.

    Examples
    --------
    >>> chain = jc.discover(lambda w, x: jnp.tanh(w @ x), jnp.ones((3, 2)), jnp.ones(2))
    >>> [(name.split("@")[0], row.out_shape) for name, row in zip(chain.names, chain.rows)]
    [('dot', 'f32[3]'), ('tanh', 'f32[3]')]

    Along tokens it begins at their embedding:

    >>> params, tokens = {"embed": jnp.ones((9, 2)), "w": jnp.ones((2, 3))}, jnp.array([3, 1, 4])
    >>> model = lambda params, tokens: jnp.tanh(params["embed"][tokens] @ params["w"])
    >>> [name.split("@")[0] for name in jc.discover(model, params, tokens).names_with_input]
    ['getitem', 'dot', 'tanh']
    """
    word("granularity", granularity, get_args(Granularity))
    default = fun.argnum if isinstance(fun, Chain) else -1
    found = find(fun, args, default if argnum is None else argnum, unroll_limit, begin=True)
    _warn_if_zero(found)
    if granularity == "bundles":
        found = found.cut(map(bundles, found.segments))
    return found.chain(group(found.segments, granularity))


@dataclass(frozen=True, eq=False)
class Found:
    """A function, traced once and cut into its finest segments: what everything else here is made from.

    Attributes
    ----------
    closed
        What JAX traced.
    program
        All of it, flat; its results are the function's, without ``aux``.
    segments
        What lies between neighbouring cuts.
    in_tree, out_tree
        Structure of the chain input and of the result.
    others
        Variables of the other arguments, and ``other_tree`` their structure.
    argnum
        Position of the chain input, counted from the last argument.
    aux_tree
        Structure of what the function returns beside its result; ``None`` where that is nothing.
    lead
        Where the argument is integers: what makes the chain input of them. All arguments are then ``others``.
    aux_outs
        What the program returns beside its result.
    """

    closed: ClosedJaxpr
    program: Program
    segments: tuple[Segment, ...]
    in_tree: Any
    out_tree: Any
    others: tuple[Var, ...]
    other_tree: Any
    argnum: int
    aux_tree: Any = None
    lead: Segment | None = None
    aux_outs: tuple[Atom, ...] = ()

    @cached_property
    def active(self) -> frozenset[Var]:
        """The variables that carry a derivative from the chain input."""
        return frozenset(active(self.program.eqns, self.segments[0].inputs))

    @cached_property
    def foreign(self) -> bool:
        """Whether a part of it is differentiated by a rule that is not JAX's own, and may refuse what JAX's does not."""
        return any(any_equation_of(eqn, is_foreign) for eqn in self.program.eqns)

    @cached_property
    def prints(self) -> list[Equation]:
        """What is there for what it prints alone, in order: debugging, which is no side effect of a stage."""
        return [equation for equation in self.program.equations if only_prints(equation.eqn)]

    @property
    def mark(self) -> Hashable | None:
        """Equal for functions traced to the same program of the same constants and rules; ``None`` where these may change."""
        mark = mark_of(self.closed)
        trees = (self.in_tree, self.other_tree, self.out_tree, self.aux_tree)
        return None if mark is None else (mark, same_arrays(trees))

    @property
    def input(self) -> Any:
        """The chain input, as shapes."""
        return self.in_tree.unflatten(map(like, self.segments[0].inputs))

    @property
    def shapes(self) -> tuple[Any, ...]:
        """All arguments, as shapes."""
        others = self.other_tree.unflatten(map(like, self.others))
        if self.lead is not None:
            return others
        position = self.argnum % (len(others) + 1)
        return *others[:position], self.input, *others[position:]

    @property
    def out(self) -> Any:
        """The result, as shapes."""
        return self.out_tree.unflatten(map(like, self.program.outs))

    def call(self, *args: Any) -> Any:
        """The function itself, its result alone: the program that was traced, without what only ``aux`` needs."""
        return self.out_tree.unflatten(self._parts[0](*jax.tree.leaves(args)))

    def aux(self, *args: Any) -> Any:
        """What the function returns beside its result."""
        return self.aux_tree.unflatten(self._parts[1](*jax.tree.leaves(args)))

    def report(self, *args: Any) -> None:
        """Print what the function prints (`jax.debug.print`), and compute nothing else."""
        if self.prints:
            pruned(self.closed, slice(0), prints=True)(*jax.tree.leaves(args))

    @cached_property
    def _parts(self) -> tuple[Callable[..., list[Any]], Callable[..., list[Any]]]:
        count = self.out_tree.num_leaves
        return pruned(self.closed, slice(count), prints=True), pruned(self.closed, slice(count, None))

    def chain(self, groups: Sequence[Sequence[Segment]]) -> Chain:
        """The chain with one stage a group of neighbouring segments."""
        led = [] if self.lead is None else [[self.lead]]
        every = names([*led, *groups])
        stages = chain_stages(groups, self.in_tree, self.out_tree, self.active, self.prints, every[len(led) :])
        # What leads to the start state is given it as its side input, computed from the arguments with all others.
        lead = tuple(Stage(name, lambda state, _: state) for name in every[: len(led)])
        wanted = (*[self.segments[0].inputs] * len(lead), *(stage.segment.sides for stage in stages))
        return Chain(stages, sides=self.sides(wanted), argnum=self.argnum, lead=lead)

    def cut(self, positions: Iterable[Iterable[int]]) -> Found:
        """The same, of each segment cut also after so many of its equations."""
        pieces = map(split_after, self.segments, positions)
        return replace(self, segments=tuple(piece for part in pieces for piece in part))

    def sides(self, wanted: tuple[tuple[Var, ...], ...]) -> Others:
        """What computes the side values that each stage wants."""
        return Others(self.program, self.others, self.other_tree, wanted)


def find(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    argnum: int,
    unroll_limit: int = UNROLL_LIMIT,
    *,
    has_aux: bool = False,
    begin: bool = False,
) -> Found:
    """Trace a function and cut it wherever it can be; arguments and errors as in `discover`.

    With ``has_aux`` the function returns ``(result, aux)``, of which the chain leads to the result alone. With
    ``begin`` the argument may be integers: the chain then begins at the first state that they enter.
    """
    at = _check(fun, args, argnum, unroll_limit)
    if begin and all_integers(args[at]):
        with uncollected():
            return _find_from_integers(fun, args, at, unroll_limit, has_aux)
    check_inexact(args[at], "The chain input")
    with uncollected():
        return _find(fun, args, at, unroll_limit, has_aux)


def _find_from_integers(
    fun: Callable[..., Any], args: tuple[Any, ...], argnum: int, unroll_limit: int, has_aux: bool
) -> Found:
    closed, out = trace_program(fun, args)
    out, aux = out if has_aux else (out, None)
    check_result(out)
    start = len(jax.tree.leaves(args[:argnum]))
    program = flatten(closed)
    every, _ = program.outs, _without_aux(program, out)
    integers = program.invars[start : start + len(jax.tree.leaves(args[argnum]))]
    state = first_state(program, integers)
    program.outs = every  # a loop that is unrolled writes other variables
    program = unrolled(program, [state], unroll_limit)
    aside = _without_aux(program, out)
    whole, carries = _chain_part(program, [state])
    return Found(
        closed,
        program,
        tuple(split_at_cuts(whole, carries)),
        jax.tree.structure(0),
        jax.tree.structure(out),
        tuple(program.invars),
        jax.tree.structure(args),
        argnum - len(args),
        jax.tree.structure(aux) if has_aux else None,
        way_to(program, integers, state),
        aside,
    )


def _find(fun: Callable[..., Any], args: tuple[Any, ...], argnum: int, unroll_limit: int, has_aux: bool) -> Found:
    closed, out = trace_program(fun, args)
    out, aux = out if has_aux else (out, None)
    check_result(out)
    leaves = [jax.tree.leaves(arg) for arg in args]
    start = sum(map(len, leaves[:argnum]))
    stop = start + len(leaves[argnum])
    program = flatten(closed, lambda invars: invars[start:stop], unroll_limit)
    aside = _without_aux(program, out)
    whole, carries = _chain_part(program, program.invars[start:stop])
    return Found(
        closed,
        program,
        tuple(split_at_cuts(whole, carries)),
        jax.tree.structure(args[argnum]),
        jax.tree.structure(out),
        tuple(program.invars[:start] + program.invars[stop:]),
        jax.tree.structure(args[:argnum] + args[argnum + 1 :]),
        argnum - len(args),
        jax.tree.structure(aux) if has_aux else None,
        aux_outs=aside,
    )


def _without_aux(program: Program, out: Any) -> tuple[Atom, ...]:
    """Leave a program its result alone, so that what only aux needs is off the path; what was cut away."""
    count = len(jax.tree.leaves(out))
    aside = tuple(program.outs[count:])
    program.outs = program.outs[:count]
    return aside


def _chain_part(program: Program, inputs: list[Var]) -> tuple[Segment, dict[int, list[Var]]]:
    """The equations on a path from the chain input to the output, and the loop carries among them."""
    dependent = reach(program.eqns, inputs)
    on_the_way = {id(equation) for equation in program.needed()}
    kept = [id(e) in on_the_way and any(var in dependent for var in e.reads) for e in program.equations]
    carries: dict[int, list[Var]] = {}
    count = 0
    for position, keep in enumerate(kept, start=1):
        count += keep  # positions among the equations that are kept
        if position in program.carries:
            carries[count] = program.carries[position]
    equations = tuple(e for e, keep in zip(program.equations, kept, strict=True) if keep)
    return Segment(equations, tuple(inputs), tuple(program.outs), program), carries


def _warn_if_zero(found: Found) -> None:
    outs = [out for out in found.program.outs if is_var(out)]
    if any(out in found.active for out in outs):
        return
    reached = reach(found.program.eqns, found.segments[0].inputs)
    if any(out in reached for out in outs):
        msg = "The result depends on the chain input only through integers, booleans or stop_gradient, so every derivative along this chain is zero."
    else:
        msg = "The result does not depend on the chain input, so every derivative along this chain is zero. Is argnum the argument you meant?"
    warn(msg, UserWarning)


@dataclass(frozen=True, eq=False)
class Others:
    """Side inputs of a discovered chain: computed once from the arguments that are not the chain's."""

    program: Program
    invars: tuple[Var, ...]
    in_tree: Any
    wanted: tuple[tuple[Var, ...], ...]

    def __getitem__(self, index: slice, /) -> Others:
        return Others(self.program, self.invars, self.in_tree, self.wanted[index])

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Refuse: the function's own arguments are its parameters."""
        del key
        msg = "A discovered chain takes the arguments of its function; initialise the model in its own framework."
        raise TypeError(msg)

    def __call__(self, *others: Any) -> tuple[Side, ...]:
        """The side values that the stages read, each computed once."""
        leaves, tree = jax.tree.flatten(others)
        if tree != self.in_tree or not fits(leaves, self.invars):
            wanted = describe(self.in_tree.unflatten([var.aval for var in self.invars]))
            msg = f"This chain was discovered for other arguments {wanted}, but {describe(others)} were given. Discover again for these."
            raise TypeError(msg)
        values = self.values(leaves)
        return tuple(tuple(values[var] for var in side) for side in self.wanted)

    def values(self, leaves: Sequence[Any]) -> dict[Var, Any]:
        """Every side value that is wanted, by its variable."""
        distinct, call = self._computed
        return dict(zip(distinct, call(*leaves), strict=True))

    @cached_property
    def _computed(self) -> tuple[list[Var], Callable[..., list[Any]]]:
        distinct = list(dict.fromkeys(var for side in self.wanted for var in side))
        return distinct, computing(self.program, distinct, self.invars).call


def unrolling(unroll_limit: Any) -> int:
    """``unroll_limit``, once it is one."""
    return integer("unroll_limit", unroll_limit, "the most steps of a loop that become stages", least=0)


def _check(fun: Any, args: tuple[Any, ...], argnum: int, unroll_limit: int) -> int:
    """The position of the chain input, once it holds arrays."""
    check_function(fun, "discover", args)
    at = position_among(args, argnum)
    unrolling(unroll_limit)
    if not jax.tree.leaves(args[at]):
        msg = f"Argument {at}, the chain input, holds no array."
        raise TypeError(msg)
    return at
