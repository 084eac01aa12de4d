"""Chapter 8, the cheapest order: the same product of Jacobians, for a fraction of the work."""

from __future__ import annotations

from typing import Any

from jaxchain.jacobians.planner import Plan
from jaxchain.lesson.cell import Workbook, number
from jaxchain.lesson.chapter import Chapter, Choice, Option
from jaxchain.show.plain import plain

__all__ = ["cheapest_order"]


def cheapest_order() -> Chapter:
    """An hourglass 100-40-4-40-100: forward, reverse and the planned order, step by step."""
    book = Workbook()
    costs = book.run(
        "plan",
        """
net = jc.nets.mlp([100, 40, 4, 40, 100], "tanh")
params, x = net.init(jax.random.key(0)), jnp.ones(100)
plan = jc.plan(net, (params, x))
plan.forward_cost, plan.reverse_cost, plan.cost
""",
    )
    gap = book.run(
        "same",
        """
forward = jc.jacobian(net, mode="forward")(params, x)
planned = jc.jacobian(net, mode="mixed")(params, x)
largest = jnp.abs(forward).max()
forward.shape, jnp.abs(forward - planned).max() / largest
""",
    )
    check_costs = book.run(
        "check",
        """
cost = lambda m, k, n: m * k * n
from_the_input = cost(500, 500, 6) + cost(200, 500, 6)
from_the_output = cost(200, 500, 500) + cost(200, 500, 6)
from_the_input, from_the_output
""",
    )
    values = {
        "names": book.names["net"].names, "sizes": book.names["plan"].sizes, "costs": dict(zip(("forward", "reverse", "planned"), costs, strict=True)),
        "gain": min(costs[:2]) / costs[2], "gap": gap[1], "ways": _steps(book.names["plan"].plan), "check_costs": check_costs,
    }  # fmt: skip
    asks = "If the whole table is wanted, in which order should the Jacobians be multiplied?"
    return Chapter("order", "The cheapest order", asks, _check(*check_costs), plain(values), book.cells)


def _steps(plan: Plan) -> dict[str, list[dict[str, Any]]]:
    """What is known after each step of the three orders, and what it cost.

    A Jacobian that is read off the weights costs nothing, and changes no picture: it is no step.
    """
    sizes, last = plan.sizes, len(plan.units)
    columns, rows = sizes[0], sizes[-1]
    pushed = [(0, k + 1, columns * unit.tangent) for k, unit in enumerate(plan.units)]
    pulled = [(k, last, rows * unit.adjoint) for k, unit in reversed(list(enumerate(plan.units)))]
    planned = [(step.start, step.stop, step.cost) for step in plan.steps if step.cost]
    return {
        mode: [
            {"from": start, "to": stop, "shape": (sizes[stop], sizes[start]), "cost": cost}
            for start, stop, cost in steps
        ]
        for mode, steps in (("forward", pushed), ("reverse", pulled), ("planned", planned))
    }


def _check(from_input: int, from_output: int) -> Choice:
    return Choice(
        "Three stages take 6 numbers to 500, to 500, to 200. Their Jacobians are 500×6, 500×500 and 200×500. Which multiplication should come first?",
        (
            Option(
                "Of the two nearest the input, 500×500 by 500×6",
                f"It leaves a narrow table with 6 columns, and so does the next: {number(from_input)} multiply-adds in all. The other order takes {number(from_output)}. This is forward mode, and here it wins, for the inputs are few.",
                right=True,
            ),
            Option(
                "Of the two nearest the output, 200×500 by 500×500",
                f"That makes a wide table, 200×500, for {number(200 * 500 * 500)} multiply-adds. Beginning at the narrow end takes {number(from_input)} in all. Reverse mode wins where outputs are few.",
            ),
            Option(
                "It makes no difference: the product is the same",
                f"The product is the same, but not the work: {number(from_input)} multiply-adds from the input, {number(from_output)} from the output.",
            ),
        ),
    )
