"""The record of where numbers are lost: the stage, whether on the way there or back, the equation, and what helps.

Builds on `show` and `births`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxchain.program.births import Birth, broken
from jaxchain.show.table import Shown, Table
from jaxchain.show.values import count

__all__ = ["OTHERWISE", "Nonfinite", "advice_of", "told", "where_of"]

FINITE = "All states and derivatives are finite"

WORDS = {"state": "the state", "cotangent": "the cotangent", "argument cotangent": "the cotangent of a parameter"}


@dataclass(frozen=True)
class Nonfinite(Shown):
    """What `locate_nonfinite` returns.

    Attributes
    ----------
    stage
        The first stage whose state is not finite; where all states are, the first on the way back whose cotangent is
        not: of the chain input its name, ``None`` where all is finite.
    kind
        ``"state"``; ``"cotangent"``: what the stage passes back; ``"argument cotangent"``: what it passes to its
        parameters, or other arguments. ``None`` where all is finite.
    where
        The equation that made the first NaN or infinity, with its line and the step of a loop, as far as that is known;
        or which argument has it.
    value
        What is not finite there.
    advice
        What to do.
    notes
        What could not be looked at, and infinities that did no harm.

    Examples
    --------
    >>> found = jc.locate_nonfinite(lambda x: jnp.sum(jnp.sqrt(x)), (jnp.array([1.0, 0.0]),))
    >>> found.kind, found.where.split(" at ")[0], found.value
    ('cotangent', 'div', '1 of 2 entries are infinite')
    >>> jc.locate_nonfinite(jnp.exp, (1.0,)).finite
    True
    """

    stage: str | None = None
    kind: Literal["state", "cotangent", "argument cotangent"] | None = None
    where: str = ""
    value: str = ""
    advice: str = ""
    notes: tuple[str, ...] = ()

    @property
    def finite(self) -> bool:
        """Whether all states and derivatives are."""
        return self.stage is None

    @property
    def brief(self) -> str:
        """All of it but the advice, in one line."""
        if self.kind is None:
            return FINITE
        return (
            f"{WORDS[self.kind]} {'in' if self.kind == 'argument cotangent' else 'of'} {self.stage}: {self.value}"
            + (f", by {self.where}" if self.where else "")
        )

    def _brief(self) -> str:
        return self.brief

    def _table(self) -> Table:
        if self.kind is None:
            return Table(f"{FINITE}.", (), (), self.notes)
        return Table(f"The first that is not finite is {self.brief}.", (), (), (self.advice, *self.notes))


def told(tree: Any) -> str:
    """How many numbers of a pytree are broken, and how."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if broken(leaf).size]
    nan = sum(int(broken(leaf, nan=True).sum()) for leaf in leaves)
    infinite = sum(int(broken(leaf).sum()) for leaf in leaves) - nan
    size = count(sum(int(np.size(leaf)) for leaf in leaves), "entry").replace("entrys", "entries")
    kinds = [f"{number:,}" + word for number, word in ((nan, " NaN"), (infinite, " infinite")) if number]
    if len(kinds) == 1:
        number, word = kinds[0].split(" ")
        return f"{number} of {size} {'is' if number == '1' and size == '1 entry' else 'are'} {word}"
    return f"of {size} {' and '.join(kinds)}"


def where_of(birth: Birth) -> str:
    """An equation in words: ``exp at model.py:12 (softmax), in step 7 of a loop``."""
    place = f" at {birth.site}" if birth.site.file else ""
    own = birth.site.function in ("", birth.name) or birth.site.function.startswith("operator_")
    inside = "" if own else f" ({birth.site.function})"
    steps = "".join(f", in step {step} of a loop" for step in reversed(birth.steps))
    after = f"; {birth.after} then makes NaN of it" if birth.after else ""
    return f"{birth.name}{place}{inside}{steps}{after}"


FEW_BITS = ("bfloat16", "float16")

AHEAD: dict[str, str] = {
    "div": "It divides by zero: add a small number to what it divides by, or choose that by jnp.where before the division.",
    "exp": "It overflows: subtract the largest of what it is given first, as jax.nn.softmax and jax.nn.logsumexp do, or bound it.",
    "log": "It is the logarithm of zero or less: bound what it is given from below (jnp.maximum, jnp.clip), or use jnp.log1p, jax.nn.log_softmax or jax.scipy.special.xlogy.",
    "sqrt": "A root of less than zero: bound what it is given from below (jnp.maximum).",
    "rsqrt": "One over the root of zero or less: add a small number inside.",
    "sub": "Infinity less infinity: of a row that is masked everywhere softmax has nothing to choose from. Mask with a large finite number, or leave such rows out.",
    "mul": "A product of infinity and zero, or one that overflows: choose what it is given by jnp.where before, not only what is made of it.",
    "dot_general": "A product of matrices overflows: smaller weights, a normalisation before it, or more bits.",
}

ALIKE = {"add_any": "mul", "exp2": "exp", "expm1": "exp", "log1p": "log"}

UNDEFINED = "The derivative is infinite here, as a root's, a norm's or a quotient's is at 0: add a small number inside, or choose what it is given by jnp.where before it is applied: a where behind it leaves 0 · ∞ in the derivative."

OTHERWISE = "It overflows, or is undefined at what it was given: bound that, or compute in more bits."


def advice_of(birth: Birth, *, back: bool) -> str:
    """What helps against an equation's NaN or infinities."""
    small = str(getattr(birth.value, "dtype", "")) in FEW_BITS and not birth.nan and _overflows(birth.operands)
    if small:
        return f"It overflows in {birth.value.dtype}: compute it in float32, or bound what it is given."
    if back and birth.name in ("div", "integer_pow", "mul", "pow", "rsqrt", "sqrt"):
        return UNDEFINED
    return AHEAD.get(ALIKE.get(birth.name, birth.name), OTHERWISE)


def _overflows(operands: Sequence[Any]) -> bool:
    """Whether the same in float32 might hold: nothing that was read is zero."""
    numbers = (operand for operand in operands if jnp.issubdtype(operand.dtype, jnp.floating))
    return all(bool(np.all(np.asarray(operand, np.float64))) for operand in numbers)
