"""What jaxchain knows of JAX's own primitives: what kind each is, and where its parameters are.

This is the only file that reads parameters of primitives, or says what kind a name is. A primitive of a new JAX is
entered in `FAMILIES` (a test lists those that are missing); a renamed parameter is mended in the
layout function that reads it. Rules that say what a primitive *does* to a derivative, a batch or a
formula live beside their use, keyed by the names here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import float0
from jax.extend.core import (  # pyright: ignore[reportPrivateImportUsage]
    ClosedJaxpr,
    DebugInfo,
    DropVar,
    Jaxpr,
    JaxprEqn,
    Literal,
    Var,
    jaxpr_as_fun,
    jaxprs_in_params,
)

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = [
    "AFFINE",
    "BILINEAR",
    "ELEMENTWISE",
    "FAMILIES",
    "FAMILY",
    "HEAVY",
    "KEEPS_ORDER",
    "MIXING",
    "MOVES",
    "RESHAPING",
    "WITHOUT_DERIVATIVE",
    "Atom",
    "ClosedJaxpr",
    "Jaxpr",
    "JaxprEqn",
    "Literal",
    "Var",
]

Atom = Var | Literal
"""What an equation reads: a variable or a literal."""

# ------------------------------------------------------------------------------------------------------------ tables

FAMILIES: dict[str, str] = {
    # Every entry of the result depends on the operands' entries at its own place alone.
    "elementwise": """
        abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp clz complex conj
        convert_element_type copy cos cosh digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge gt igamma
        igamma_grad_a igammac imag integer_pow is_finite layout_constraint le le_to lgamma log log1p log2 logistic lt lt_to
        max min mul mulhi name ne neg nextafter not one_minus_square or polygamma polynomial population_count pow random_gamma_grad
        real reduce_precision regularized_incomplete_beta rem reshard round rsqrt select_n sharding_constraint
        shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh
        with_memory_space_constraint xor zeta
    """,
    # Entries change places, nothing is computed; a bit cast may change the shape, too.
    "layout": """
        bitcast_convert_type broadcast_in_dim broadcast_to concatenate expand_dims pad reshape rev slice split squeeze stack tile
        transpose unstack
    """,
    "reduction": """
        argmax argmin reduce reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor
    """,
    "cumulative": "cumlogsumexp cummax cummin cumprod cumsum",
    "window": """
        reduce_window reduce_window_max reduce_window_min reduce_window_sum select_and_gather_add select_and_scatter
        select_and_scatter_add
    """,
    "order": "approx_top_k sort top_k",
    "product": "conv_general_dilated dot_general ragged_dot_general scaled_dot scaled_matmul scaled_matmul_wrapper",
    "fourier": "fft",
    "matrix": """
        cholesky cholesky_update eig eigh geqp3 geqrf hessenberg householder_product lu lu_pivots_to_permutation ormqr qr schur
        spsolve svd symmetric_product triangular_solve tridiagonal tridiagonal_solve
    """,
    "index": """
        dynamic_slice dynamic_update_slice gather scatter scatter-add scatter-max scatter-min scatter-mul scatter-sub
    """,
    "fresh": """
        axis_index create_token dim_as_value dimension_size empty empty2 iota iota_2x32_shape platform_index zeros_like
    """,
    "random": """
        from_edtype philox2x32 philox4x32 random_bits random_clone random_fold_in random_gamma random_seed random_split
        random_unwrap random_wrap rng_bit_generator rng_uniform threefry2x32 threefry4x32 to_edtype
    """,
    # Each result is the operand at its place.
    "pass": "device_put optimization_barrier tie",
    "call": "call call_exported closed_call composite core_call core_closed_call custom_vmap_call eval_jaxpr jit pjit",
    "remat": "checkpoint remat remat2 remat_opt",
    "custom": """
        call_hi_primitive call_hi_primitive_linearized custom_jvp_call custom_jvp_call_jaxpr custom_lin custom_vjp_call
    """,
    "loop": "cond scan while",
    "solve": "custom_linear_solve linear_call",
    "opaque": """
        cudnn_fusion custom_partitioning dot_product_attention_bwd dot_product_attention_bwd_wrapper
        dot_product_attention_fp8_bwd dot_product_attention_fp8_bwd_wrapper dot_product_attention_fp8_fwd
        dot_product_attention_fp8_fwd_wrapper dot_product_attention_fwd dot_product_attention_fwd_wrapper ffi_call
        pure_callback shard_map
    """,
    "collective": """
        all_gather all_gather_done all_gather_invariant all_gather_reduced all_gather_reduced_start all_gather_start
        all_to_all all_to_all_done all_to_all_start pbroadcast pbroadcast_done pbroadcast_dynamic pbroadcast_start pmax
        pmin ppermute ppermute_done ppermute_start precv preduced psend psum psum_done psum_invariant
        psum_invariant_start psum_start pvary ragged_all_to_all reduce_scatter reduce_scatter_done reduce_scatter_start
        reduced_vary_cast reduced_vary_cast_p relayout unreduced_pmax unreduced_pmin unreduced_psum unreduced_psum_start
        unreduced_reduce_scatter unreduced_reduce_scatter_start vary_unreduced_cast vary_unreduced_cast_p
    """,
    "sparse": """
        bcoo_dot_general bcoo_dot_general_sampled bcoo_extract bcoo_fromdense bcoo_sort_indices bcoo_spdot_general
        bcoo_sum_duplicates bcoo_todense bcoo_transpose bcsr_dot_general bcsr_extract bcsr_fromdense bcsr_todense
        coo_fromdense coo_matmat coo_matvec coo_spmm coo_spmv coo_todense csr_fromdense csr_matmat csr_matvec csr_spmm
        csr_spmv csr_todense todense
    """,
    # Values that live beside the program (mutable references), and what happens beside it.
    "effect": """
        accum_grad_in_ref addupdate after_all box_get box_set check core_map create_linear dce_sink debug_callback
        debug_print empty_ref free_ref freeze get inspect_sharding io_callback log_extend log_read new_box new_log
        new_ref pin run_state shape_assertion stage swap unpin unreachable
    """,
}
"""Every primitive of JAX 0.10 to 0.12, by kind."""

FAMILY = {name: family for family, names in FAMILIES.items() for name in names.split()}
"""Primitive → its kind."""


def names_in(*families: str) -> frozenset[str]:
    """The primitives of some families."""
    return frozenset(name for name, family in FAMILY.items() if family in families)


ELEMENTWISE = names_in("elementwise")

RESHAPING = frozenset(
    [
        "broadcast_in_dim",
        "convert_element_type",
        "copy",
        "expand_dims",
        "reshape",
        "rev",
        "squeeze",
        "stop_gradient",
        "transpose",
    ]
)
"""Leaves the numbers as they are: trivial to a person, a part of what reads it."""

KEEPS_ORDER = frozenset(["copy", "expand_dims", "reshape", "squeeze"])
"""Leaves even the row-major order of the numbers as it is; a reshape that reads its axes in an order does not."""

AFFINE = frozenset(["add", "add_any", "div", "mul", "neg", "sub"])
"""Scales or shifts, where only one operand is the state."""

WITHOUT_DERIVATIVE = frozenset(["ceil", "floor", "round", "sign", "stop_gradient"])
"""Its derivative is zero, and JAX knows: what it makes is held fixed."""

SHIFTS = AFFINE - {"div", "mul", "neg"}

BILINEAR = frozenset(["conv_general_dilated", "dot_general", "mul"])
"""Linear in each of its two operands."""

HEAVY = frozenset(["cond", "conv_general_dilated", "dot_general", "fft", "scan", "while"])
"""What a stage is named by, where it holds one."""

MOVES = names_in("layout", "pass", "fresh") | frozenset(
    [
        "convert_element_type",
        "copy",
        "device_put",
        "dynamic_slice",
        "dynamic_update_slice",
        "gather",
        "imag",
        "layout_constraint",
        "name",
        "real",
        "reshard",
        "sharding_constraint",
        "stop_gradient",
    ]
)
"""Moves numbers, computes none: no floating-point operation in XLA's count."""

MIXING = names_in("cumulative", "fourier", "matrix", "solve") | frozenset(
    ["call_hi_primitive", "custom_vjp_call", "dot_general", "scan", "sort", "while"]
)
"""Makes a pattern dense more often than not, or has a derivative that no program shows before it runs."""

MOST_LISTED = 1 << 20
"""Products whose results read more numbers in sum are not gone through for a pattern."""

# ----------------------------------------------------------------------------------------------- variables and programs


def is_var(atom: Any) -> TypeIs[Var]:
    """Whether an atom is a variable, not a literal."""
    return isinstance(atom, Var)


def is_used(var: Any) -> bool:
    """Whether a written variable has a name, so that something may read it."""
    return not isinstance(var, DropVar)


def is_inexact(atom: Atom) -> bool:
    """Whether an atom carries a derivative: real or complex floating point."""
    dtype = dtype_of(atom)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def shape_of(atom: Atom) -> tuple[int, ...]:
    """The shape of an atom; of what is no array, such as a token, that of one number."""
    return getattr(atom.aval, "shape", ())


def dtype_of(atom: Atom) -> Any:
    """The dtype of an atom; ``None`` of what is no array."""
    return getattr(atom.aval, "dtype", None)


def ndim_of(atom: Atom) -> int:
    """How many axes an atom has."""
    return len(shape_of(atom))


def size_of(atom: Atom) -> int:
    """How many entries an atom has."""
    return math.prod(shape_of(atom))


def like(var: Atom) -> jax.ShapeDtypeStruct:
    """A variable's shape and dtype."""
    return jax.ShapeDtypeStruct(shape_of(var), dtype_of(var))


def new_var(aval: Any) -> Var:
    """A fresh variable."""
    return Var(aval)


def new_jaxpr(
    constvars: Sequence[Var], invars: Sequence[Var], outvars: Sequence[Atom], eqns: Sequence[JaxprEqn]
) -> Jaxpr:
    """A jaxpr of these parts."""
    info = DebugInfo("jaxchain", "segment", ("",) * len(invars), ("",) * len(outvars))
    return Jaxpr(list(constvars), list(invars), list(outvars), list(eqns), debug_info=info)


def function_of(jaxpr: Jaxpr, constants: Sequence[Any] = ()) -> Callable[..., list[Any]]:
    """The function that a jaxpr is, of its inputs' leaves; custom rules, contexts and scopes stay JAX's business."""
    return jaxpr_as_fun(ClosedJaxpr(jaxpr, list(map(as_array, constants))))


def bind(eqn: JaxprEqn, values: Sequence[Any]) -> Any:
    """What an equation makes of operands, smaller ones or batched ones too: an array, or a list where it makes many."""
    # An equation that holds a program wants it as a function, which is what JAX calls its bind parameters.
    return eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))


def as_array(constant: Any) -> Any:
    """A constant of a program as JAX's array, where it is one of NumPy's."""
    # A rule may index what it kept of it by a tracer, which NumPy's arrays refuse; and it may keep it for another
    # trace than this one, so that it must be no tracer itself.
    if not isinstance(constant, np.ndarray) or constant.dtype == float0:
        return constant
    with jax.ensure_compile_time_eval():
        return jnp.asarray(constant)


def function_of_equation(eqn: JaxprEqn) -> tuple[list[Var], list[Var], Callable[..., list[Any]]]:
    """The variables that one equation reads and writes, each once, and the function between them."""
    reads = list(dict.fromkeys(filter(is_var, eqn.invars)))
    writes = [var for var in eqn.outvars if is_used(var)]
    return reads, writes, function_of(new_jaxpr([], reads, writes, [eqn]))


def of_some(call: Callable[..., list[Any]], values: Sequence[Any], which: Sequence[int]) -> Callable[..., list[Any]]:
    """``call`` as a function of some of its values alone, the others held as they are."""

    def of_chosen(*chosen: Any) -> list[Any]:
        full = [*values]
        for k, value in zip(which, chosen, strict=True):
            full[k] = value
        return call(*full)

    return of_chosen


def pruned(closed: ClosedJaxpr, which: slice, *, prints: bool = False) -> Callable[..., list[Any]]:
    """The function that computes some of a program's results, and nothing that only others need."""
    jaxpr = closed.jaxpr
    outs = jaxpr.outvars[which]
    eqns = needed_eqns(jaxpr, outs, prints=prints)
    call = function_of(new_jaxpr(jaxpr.constvars, jaxpr.invars, outs, eqns), closed.consts)
    return (
        call if all(map(is_var, outs)) else lambda *args: list(map(jnp.asarray, call(*args)))
    )  # literals are JAX's own


def needed_eqns(jaxpr: Jaxpr, outs: Sequence[Atom], *, prints: bool = False) -> list[JaxprEqn]:
    """The equations that some results of a program depend on, and what it ``prints``, in order."""
    read, kept = set(filter(is_var, outs)), list[JaxprEqn]()
    for eqn in reversed(jaxpr.eqns):
        if (prints and only_prints(eqn)) or not read.isdisjoint(filter(is_used, eqn.outvars)):
            read.update(filter(is_var, eqn.invars))
            kept.append(eqn)
    return kept[::-1]


def only_raises(jaxpr: Jaxpr | ClosedJaxpr) -> bool:
    """Whether all results of a program come from callbacks that read no real number: it is there to raise an error."""
    inner = opened(jaxpr)[0]
    returned = set[Any]()
    for eqn in inner.eqns:
        reads = list(filter(is_var, eqn.invars))
        raises = eqn.primitive.name == "pure_callback" and not any(is_inexact(v) and v not in returned for v in reads)
        moves = FAMILY.get(eqn.primitive.name) == "layout" and bool(reads) and returned.issuperset(reads)
        if raises or moves:
            returned.update(eqn.outvars)
    return bool(inner.outvars) and all(is_var(out) and out in returned for out in inner.outvars)


def opened(jaxpr: Jaxpr | ClosedJaxpr) -> tuple[Jaxpr, Sequence[Any]]:
    """A jaxpr without its constants, and its constants."""
    if isinstance(jaxpr, ClosedJaxpr):  # pyright: ignore[reportUnnecessaryIsInstance]  # one class from JAX 0.12 on
        return jaxpr.jaxpr, tuple(jaxpr.consts)
    return jaxpr, ()


def is_jaxpr(value: Any) -> TypeIs[Jaxpr | ClosedJaxpr]:
    """Whether a parameter is a program."""
    return isinstance(value, (Jaxpr, ClosedJaxpr))


def inner_programs(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """Every program among an equation's parameters."""
    return (opened(body)[0] for body in jaxprs_in_params(eqn.params))


def any_equation(jaxpr: Jaxpr, holds: Callable[[JaxprEqn], bool]) -> bool:
    """Whether something holds for an equation of a program, or of one inside it."""
    return any(any_equation_of(eqn, holds) for eqn in jaxpr.eqns)


def any_equation_of(eqn: JaxprEqn, holds: Callable[[JaxprEqn], bool]) -> bool:
    """Whether something holds for an equation, or one of the programs inside it."""
    return holds(eqn) or any(any_equation(inner, holds) for inner in inner_programs(eqn))


def equation_count(program: Jaxpr | ClosedJaxpr, *, loop: int = 0) -> int:
    """How many equations a program has, those of calls counted wherever they are called, a loop's once.

    A loop itself counts for ``loop`` more.
    """
    known: dict[Jaxpr, int] = {}  # shared programs are counted once; as keys they live, and so their identity is theirs

    def count(jaxpr: Jaxpr) -> int:
        if jaxpr not in known:
            loops = sum(eqn.primitive.name in ("scan", "while") for eqn in jaxpr.eqns)
            known[jaxpr] = loop * loops + sum(1 + sum(map(count, inner_programs(eqn))) for eqn in jaxpr.eqns)
        return known[jaxpr]

    return count(opened(program)[0])


# --------------------------------------------------------------------------------------------------------------- calls


def callee(eqn: JaxprEqn) -> Jaxpr | ClosedJaxpr | None:
    """The program that a plain or rematerialised call runs; ``None`` where an equation is no such call."""
    if FAMILY.get(eqn.primitive.name) not in ("call", "remat"):
        return None
    for key in ("jaxpr", "call_jaxpr", "call"):
        if is_jaxpr(body := eqn.params.get(key)):
            return body
    return None


def name_given(eqn: JaxprEqn) -> str | None:
    """The name that ``jax.ad_checkpoint.checkpoint_name`` gives a value; ``None``: another equation."""
    return eqn.params["name"] if eqn.primitive.name == "name" else None


def is_new(eqn: JaxprEqn) -> bool:
    """Whether an equation is of JAX's new primitives, which are objects: some of its own functions are, since 0.12."""
    return eqn.primitive.name == "call_hi_primitive"


def is_remat(eqn: JaxprEqn) -> bool:
    """Whether an equation is a rematerialised call (``jax.checkpoint``)."""
    return FAMILY.get(eqn.primitive.name) == "remat"


def with_callee(eqn: JaxprEqn, body: Jaxpr, invars: Sequence[Var], outvars: Sequence[Var]) -> JaxprEqn:
    """The same rematerialised call, of another program."""
    return eqn.replace(invars=list(invars), outvars=list(outvars), params={**eqn.params, "jaxpr": body})


def is_inlined(eqn: JaxprEqn) -> bool:
    """Whether a call may be replaced by what it runs: it asks for nothing of its own, such as shardings."""
    name = eqn.primitive.name
    if FAMILY.get(name) != "call" or name in ("call", "call_exported", "composite", "custom_vmap_call", "eval_jaxpr"):
        return False
    asked = (*eqn.params.get("in_shardings", ()), *eqn.params.get("out_shardings", ()))
    return callee(eqn) is not None and all(type(sharding).__name__ == "UnspecifiedValue" for sharding in asked)


def call_name(eqn: JaxprEqn) -> str:
    """The name of the function that a call runs, as its author wrote it; empty where it has none."""
    return str(eqn.params.get("name", "")).strip("<>")


def source_of(jaxpr: Jaxpr | ClosedJaxpr) -> str:
    """Name, file and line of the function that a program was traced from: ``f at file:line``."""
    return str(getattr(opened(jaxpr)[0].debug_info, "func_src_info", "") or "")


# ------------------------------------------------------------------------------------------------- derivative rules


class Custom(NamedTuple):
    """A call with a derivative rule of its own.

    Attributes
    ----------
    body
        The program of its value; ``None`` where JAX keeps none.
    forward
        Whether the rule is one of JVPs; else of VJPs.
    """

    body: Jaxpr | ClosedJaxpr | None
    forward: bool


def custom_rule(eqn: JaxprEqn) -> Custom | None:
    """The derivative rule that an equation brings along; ``None`` where JAX's own rules are used."""
    name, params = eqn.primitive.name, eqn.params
    if name in ("custom_jvp_call", "custom_jvp_call_jaxpr"):
        return Custom(params.get("call_jaxpr", params.get("jaxpr")), forward=True)
    if name == "custom_vjp_call":
        return Custom(params["call_jaxpr"], forward=False)
    if is_new(eqn):
        return Custom(_expanded(eqn), forward=False)
    return None


def _expanded(eqn: JaxprEqn) -> ClosedJaxpr:
    """The program that a primitive of JAX's newer kind stands for."""
    primitive = eqn.params["_prim"]
    return jax.make_jaxpr(primitive.expand)(*primitive.in_tree.unflatten([like(atom) for atom in eqn.invars]))


def sees_what_moves(eqn: JaxprEqn) -> bool:
    """Whether an equation's rule is told which operands do not move: its author asked for symbolic zeros."""
    return bool(eqn.params.get("symbolic_zeros"))


def is_forward_of_custom_vjp(eqn: JaxprEqn) -> bool:
    """Whether an equation is JAX's placeholder for forward mode through a custom VJP, which fails once it is run."""
    return eqn.primitive.name == "custom_lin"


# --------------------------------------------------------------------------------------------------- loops and branches


class Scan(NamedTuple):
    """A ``scan``: operands are constants, carries and stacked values; results are carries and stacked values."""

    body: ClosedJaxpr
    consts: int
    carries: int
    length: int
    reverse: bool
    unroll: int | bool


def scan_of(eqn: JaxprEqn) -> Scan:
    """The layout of a scan; JAX 0.12 keeps its arity as trees."""
    params = eqn.params
    if "num_consts" in params:
        consts, carries = params["num_consts"], params["num_carry"]
    else:
        kept, carry, _ = params["ft_in"].unpack()
        consts, carries = len(kept), len(carry)
    return Scan(params["jaxpr"], consts, carries, params["length"], params["reverse"], params["unroll"])


def carries_of(loop: Scan) -> list[tuple[Atom, Var]]:
    """What a step of a scan makes of each carry, and what it was given."""
    body = opened(loop.body)[0]
    given = body.invars[loop.consts : loop.consts + loop.carries]
    return list(zip(body.outvars[: loop.carries], given, strict=True))


def adds_up(loop: Scan) -> list[bool]:
    """For each carry of a scan, whether a step adds something to it and reads it for nothing else."""
    body = opened(loop.body)[0]
    readers: dict[Var, list[JaxprEqn | None]] = {}
    for reader, atoms in [*((eqn, eqn.invars) for eqn in body.eqns), (None, body.outvars)]:
        for atom in filter(is_var, atoms):
            readers.setdefault(atom, []).append(reader)

    def added(made: Atom, now: Var) -> bool:
        names = list[str]()
        while now is not made:
            reader = readers[now][0] if len(readers.get(now, ())) == 1 else None
            if reader is None or dtype_of(reader.outvars[0]) != dtype_of(now):
                return False
            names.append(reader.primitive.name)
            now = reader.outvars[0]
        # JAX converts a carry that a Python number began.
        return len(readers[now]) == 1 and sorted({*names} - {"convert_element_type"}) in (["add"], ["add_any"])

    return [added(made, given) for made, given in carries_of(loop)]


class While(NamedTuple):
    """A ``while``: operands are the predicate's constants, the body's, and the carry."""

    predicate: ClosedJaxpr
    body: ClosedJaxpr
    predicate_consts: int
    body_consts: int


def is_while(eqn: JaxprEqn) -> bool:
    """Whether an equation is a loop that ends when it wants."""
    return eqn.primitive.name == "while"


def while_of(eqn: JaxprEqn) -> While:
    """The layout of a while loop."""
    params = eqn.params
    return While(params["cond_jaxpr"], params["body_jaxpr"], params["cond_nconsts"], params["body_nconsts"])


def branches_of(eqn: JaxprEqn) -> Sequence[ClosedJaxpr]:
    """The branches of a ``cond``; its first operand says which, the others are theirs."""
    return eqn.params["branches"]


class LinearSolve(NamedTuple):
    """A ``custom_linear_solve``: operands are the constants of four programs, then right-hand sides.

    Attributes
    ----------
    programs
        (name, program, start, stop): a program and the range of operands that are its constants.
    consts
        How many operands are constants.
    """

    programs: tuple[tuple[str, ClosedJaxpr, int, int], ...]
    consts: int


def linear_solve_of(eqn: JaxprEqn) -> LinearSolve:
    """The layout of a linear solve; programs that it lacks (no transpose) are left out."""
    lengths, programs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    found: list[tuple[str, ClosedJaxpr, int, int]] = []
    start = 0
    for name, length in zip(lengths._fields, lengths, strict=True):
        if (program := getattr(programs, name)) is not None:
            found.append((name, program, start, start + length))
        start += length
    return LinearSolve(tuple(found), start)


def linear_call_of(eqn: JaxprEqn) -> ClosedJaxpr:
    """The program of a ``linear_call``, of its residuals and what it is linear in."""
    return eqn.params["callee"]


def bodies(eqn: JaxprEqn) -> list[tuple[Jaxpr, float]]:
    """The programs that an equation runs, each with how often where the program tells; of branches all, once each."""
    name = eqn.primitive.name
    if name == "scan":
        layout = scan_of(eqn)
        return [(opened(layout.body)[0], layout.length)]
    if name == "while":  # how often it runs is only known when it does
        return [(opened(while_of(eqn).body)[0], 1)]
    if name == "custom_linear_solve":
        return [(opened(program)[0], 1) for name, program, *_ in linear_solve_of(eqn).programs if name == "solve"]
    keys = ("jaxpr", "call_jaxpr", "body_jaxpr", "fun_jaxpr", "call")
    return [(opened(value)[0], 1) for key in keys if is_jaxpr(value := eqn.params.get(key))]


def own_evaluation(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """The program by which the author of a primitive evaluates it; ``None`` of those that JAX hands to its compiler."""
    if eqn.primitive.name in FAMILY:
        return None
    evaluate = jax.make_jaxpr(lambda *args: eqn.primitive.impl(*args, **eqn.params))
    return evaluate(*map(like, eqn.invars))


# ------------------------------------------------------------------------------------------------ programs over devices


class Sharded(NamedTuple):
    """A ``shard_map``: one program on each device of a mesh.

    Attributes
    ----------
    body
        Of the local shards.
    operands, results
        For each, the axes of the mesh that every one of its own axes is spread over; beyond the last: none.
    sizes
        Of the mesh's axes, by name.
    """

    body: Jaxpr | ClosedJaxpr
    operands: Sequence[Sequence[tuple[str, ...]]]
    results: Sequence[Sequence[tuple[str, ...]]]
    sizes: dict[str, int]


def sharded_of(eqn: JaxprEqn) -> Sharded:
    """The layout of a ``shard_map``."""
    p = eqn.params

    def spread(spec: Any) -> list[tuple[str, ...]]:
        return [() if names is None else (names,) if isinstance(names, str) else tuple(names) for names in spec]

    return Sharded(
        p["jaxpr"], list(map(spread, p["in_specs"])), list(map(spread, p["out_specs"])), dict(p["mesh"].shape)
    )


def devices_of(eqn: JaxprEqn) -> frozenset[Any]:
    """The axes of the mesh along which a collective communicates."""
    names = next((eqn.params[key] for key in ("axes", "axis_name", "axis") if key in eqn.params), ())
    return frozenset(names if isinstance(names, (tuple, list, set, frozenset)) else (names,))


def gathering_of(eqn: JaxprEqn) -> tuple[int, bool]:
    """Of an ``all_gather``: the axis along which shards are put together, and whether that is an old one."""
    return eqn.params["all_gather_dimension"], eqn.params["tiled"]


# ------------------------------------------------------------------------------------------------------------ products


class Dot(NamedTuple):
    """A ``dot_general``: axes of the left and of the right operand that are summed over, and that are batched."""

    contracted: tuple[Sequence[int], Sequence[int]]
    batched: tuple[Sequence[int], Sequence[int]]

    def free(self, operand: int, ndim: int) -> list[int]:
        """The other axes of one operand, in order: they follow the batched ones in the result, the left's first."""
        taken = {*self.contracted[operand], *self.batched[operand]}
        return [axis for axis in range(ndim) if axis not in taken]


def dot_of(eqn: JaxprEqn) -> Dot:
    """The layout of a product; of a ragged one, as if the matrices were one."""
    if "ragged_dot_dimension_numbers" in eqn.params:
        return Dot(*eqn.params["ragged_dot_dimension_numbers"].dot_dimension_numbers)
    return Dot(*eqn.params["dimension_numbers"])


def mixes(eqn: JaxprEqn, given: Container[Atom] = ()) -> bool:
    """Whether an equation makes a pattern dense more often than not.

    Not so a product that is taken many times: of rotations with points, of nodes with weights that are ``given``.
    """
    if eqn.primitive.name != "dot_general":
        return eqn.primitive.name in MIXING
    dot, shapes = dot_of(eqn), list(map(shape_of, eqn.invars))
    summed, times = (math.prod(shapes[0][axis] for axis in axes) for axes in (dot.contracted[0], dot.batched[0]))
    for own, other in ((0, 1), (1, 0)):
        if not is_var(eqn.invars[other]) or eqn.invars[other] in given:
            times *= math.prod(shapes[own][axis] for axis in dot.free(own, len(shapes[own])))
    return summed > times or summed * size_of(eqn.outvars[0]) > MOST_LISTED


def precision_of(eqn: JaxprEqn) -> frozenset[str]:
    """How precise a product is to be, one word an operand: ``"high"``, ``"highest"``; none where it is not told."""
    told = eqn.params.get("precision") if FAMILY.get(eqn.primitive.name) == "product" else None
    return frozenset(
        str(getattr(one, "name", one)).lower()
        for one in (told if isinstance(told, tuple) else [told])
        if one is not None
    )


def ragged_axes(eqn: JaxprEqn) -> tuple[Sequence[int], Sequence[int]]:
    """Of a ``ragged_dot_general``: the left's axes that are cut into groups, the right's that hold a matrix a group."""
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    return numbers.lhs_ragged_dimensions, numbers.rhs_group_dimensions


class Convolution(NamedTuple):
    """A ``conv_general_dilated``: which axis is what, and how the window moves.

    Attributes
    ----------
    image, kernel, out
        Axes (batch, feature, spatial …) of image and output; (output feature, input feature, spatial …) of the kernel.
    """

    image: Sequence[int]
    kernel: Sequence[int]
    out: Sequence[int]
    strides: Sequence[int]
    padding: Sequence[tuple[int, int]]
    image_dilation: Sequence[int]
    kernel_dilation: Sequence[int]
    feature_groups: int
    batch_groups: int


def convolution_of(eqn: JaxprEqn) -> Convolution:
    """The layout of a convolution."""
    p = eqn.params
    image, kernel, out = p["dimension_numbers"]
    return Convolution(
        image,
        kernel,
        out,
        p["window_strides"],
        p["padding"],
        p["lhs_dilation"],
        p["rhs_dilation"],
        p["feature_group_count"],
        p["batch_group_count"],
    )


def sparse_axes(eqn: JaxprEqn) -> tuple[int, int]:
    """How many leading axes of a sparse array's data are batched, and how many of the dense array are stored as indices."""
    name, params = eqn.primitive.name, eqn.params
    if name == "bcoo_fromdense":
        batched, shape = params["n_batch"], shape_of(eqn.invars[0])
        return batched, len(shape) - batched - params["n_dense"]
    if name == "bcsr_dot_general":
        return ndim_of(eqn.invars[2]) - 1, 2
    indices = eqn.invars[0 if name == "bcoo_extract" else 1]
    return ndim_of(indices) - 2, shape_of(indices)[-1]


def sparse_ndim(eqn: JaxprEqn) -> int:
    """How many axes the dense array has that a sparse one on the left of a product stands for."""
    return len(eqn.params["lhs_spinfo"].shape)


def axes_of(eqn: JaxprEqn) -> tuple[int, ...]:
    """The axes along which an equation joins, orders or takes apart entries."""
    for key in ("axes", "dimensions", "dimension", "axis", "reduction_dimension"):
        if (axes := eqn.params.get(key)) is not None:
            return tuple(int(axis) for axis in axes) if hasattr(axes, "__iter__") else (int(axes),)
    return ()


def fft_sizes(eqn: JaxprEqn) -> Sequence[int]:
    """The lengths of the trailing axes that are transformed."""
    return eqn.params["fft_lengths"]


# ------------------------------------------------------------------------------------------------- layout and indices


def permutation_of(eqn: JaxprEqn) -> Sequence[int]:
    """Of a ``transpose``: the operand's axes in the order of the result's."""
    return eqn.params["permutation"]


def broadcast_axes(eqn: JaxprEqn) -> Sequence[int]:
    """Of a ``broadcast_in_dim``: the result's axis of each axis of the operand."""
    return eqn.params["broadcast_dimensions"]


def reshape_order(eqn: JaxprEqn) -> Sequence[int] | None:
    """Of a ``reshape``: in which order the operand's axes are read; ``None``: as they are."""
    return eqn.params.get("dimensions") if eqn.primitive.name == "reshape" else None


def keeps_order(eqn: JaxprEqn) -> bool:
    """Whether an equation leaves even the row-major order of the numbers as it is."""
    return eqn.primitive.name in KEEPS_ORDER and reshape_order(eqn) is None


def padding_of(eqn: JaxprEqn) -> Sequence[tuple[int, int, int]]:
    """Of a ``pad``: (before, after, between) along each axis."""
    return [tuple(along) for along in eqn.params["padding_config"]]


def slice_of(eqn: JaxprEqn) -> Iterator[tuple[int, int, int]]:
    """Of a ``slice``: (start, stop, step) along each axis."""
    starts, stops = eqn.params["start_indices"], eqn.params["limit_indices"]
    return zip(starts, stops, eqn.params["strides"] or (1,) * len(starts), strict=True)


class Window(NamedTuple):
    """How windows lie along one axis."""

    size: int
    stride: int
    padding: tuple[int, int]
    dilation: int


def window_along(eqn: JaxprEqn, axis: int) -> Window:
    """The windows of a ``reduce_window`` or its like along one axis."""
    p = eqn.params
    dilation = p.get("base_dilation") or (1,) * (axis + 1)
    return Window(p["window_dimensions"][axis], p["window_strides"][axis], tuple(p["padding"][axis]), dilation[axis])


def index_numbers(eqn: JaxprEqn) -> Any:
    """JAX's own dimension numbers of a ``gather`` or ``scatter``."""
    return eqn.params["dimension_numbers"]


def gather_sizes(eqn: JaxprEqn) -> Sequence[int]:
    """Of a ``gather``: how much of each axis of the operand is taken at once."""
    return eqn.params["slice_sizes"]


def clips_indices(eqn: JaxprEqn) -> bool:
    """Whether a ``gather`` takes the nearest entry for one that lies outside; its derivative else knows none of that."""
    return getattr(eqn.params["mode"], "name", "") == "CLIP"


def writes_as_given(eqn: JaxprEqn) -> bool:
    """Of a ``scatter``: whether the updates are written; else a function of what is there."""
    return eqn.params["update_jaxpr"] is None


def writes_in_place(eqn: JaxprEqn) -> bool:
    """Whether an equation writes or adds a block into its first operand."""
    return eqn.primitive.name.startswith(("scatter", "dynamic_update_slice"))


class Windows(NamedTuple):
    """How a ``gather`` or ``scatter`` lays windows over its operand.

    Attributes
    ----------
    sizes
        Of a window, along each axis of the operand.
    kept
        The axes of the operand along which windows have an axis of their own.
    axes
        Where those lie in what is gathered, or in the updates.
    places
        Axis of the operand → place in an index vector.
    beside
        Axis of the operand → axis of the indices that goes along with it.
    """

    sizes: Sequence[int]
    kept: Sequence[int]
    axes: Sequence[int]
    places: dict[int, int]
    beside: dict[int, int]


def windows_of(eqn: JaxprEqn) -> Windows:
    """The layout of a ``gather`` or ``scatter``."""
    numbers, every = index_numbers(eqn), range(ndim_of(eqn.invars[0]))
    gathers = eqn.primitive.name == "gather"
    gone = numbers.collapsed_slice_dims if gathers else numbers.inserted_window_dims
    axes = numbers.offset_dims if gathers else numbers.update_window_dims
    indexed = numbers.start_index_map if gathers else numbers.scatter_dims_to_operand_dims
    beside = numbers.start_indices_batching_dims if gathers else numbers.scatter_indices_batching_dims
    kept = [axis for axis in every if axis not in (*gone, *numbers.operand_batching_dims)]
    long = {axis: shape_of(eqn.invars[2])[at] for axis, at in zip(kept, axes, strict=True)} if not gathers else {}
    sizes = gather_sizes(eqn) if gathers else [long.get(axis, 1) for axis in every]
    places = {axis: place for place, axis in enumerate(indexed)}
    return Windows(sizes, kept, axes, places, dict(zip(numbers.operand_batching_dims, beside, strict=True)))


def matrix_is_left(eqn: JaxprEqn) -> bool:
    """Of a ``triangular_solve``: whether the matrix stands on the left of the unknown."""
    return eqn.params["left_side"]


def exponent_of(eqn: JaxprEqn) -> int:
    """Of an ``integer_pow``."""
    return eqn.params["y"]


def runs_backwards(eqn: JaxprEqn) -> bool:
    """Whether a cumulative operation begins at the end."""
    return eqn.params["reverse"]


def plain_parameters(eqn: JaxprEqn) -> list[tuple[str, Any]]:
    """Parameters that are no programs."""
    return [(key, value) for key, value in eqn.params.items() if not is_jaxpr(value)]


# -------------------------------------------------------------------------------------------------------------- effects


def has_side_effect(eqn: JaxprEqn) -> bool:
    """Whether an equation does something beside computing its results; naming a mapped axis, or printing, is nothing."""
    return any(type(effect).__name__ not in ("NamedAxisEffect", "DebugEffect") for effect in eqn.effects)


def only_prints(eqn: JaxprEqn) -> bool:
    """Whether an equation is there for what it prints alone: nothing reads it, and nothing hangs on its order."""
    return bool(eqn.effects) and not has_side_effect(eqn) and not any(map(is_used, eqn.outvars))
