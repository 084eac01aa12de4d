"""Parameters as a function is given them, where its program lays them out first: a bias over a batch, a weight cast.

What lies between a parameter and the stage that reads it, if it only moves or casts numbers, is made a part of the
stage, whose side inputs are then the parameters themselves. Builds on discovered chains.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jaxchain.chain import Chain
from jaxchain.discovery.find import Others
from jaxchain.discovery.stage import DiscoveredStage
from jaxchain.program.primitives import RESHAPING
from jaxchain.program.segment import Segment

__all__ = ["reading_parameters"]


def reading_parameters(chain: Chain) -> Chain:
    """The same chain, its stages given what parameters are before they are broadcast, cast or reshaped for them.

    The cotangent of a bias laid out over a batch is one a sample; that of the bias itself is its gradient.
    """
    sides = chain.sides
    if not isinstance(sides, Others) or not all(isinstance(stage, DiscoveredStage) for stage in chain):
        return chain
    stages = [_with_layout(stage) for stage in chain if isinstance(stage, DiscoveredStage)]
    wanted = (*sides.wanted[: len(chain.lead)], *(stage.segment.sides for stage in stages))
    return Chain(stages, sides=replace(sides, wanted=wanted), argnum=chain.argnum, lead=chain.lead)


def _with_layout(stage: DiscoveredStage) -> DiscoveredStage:
    """A stage that itself lays out its side inputs."""
    first, *others = stage.parts
    made, layout = first.program.makers, list[Any]()
    waiting = list(stage.segment.sides)
    while waiting:
        equation = made.get(waiting.pop())
        if equation is None or equation in layout or equation.name not in RESHAPING or len(equation.reads) != 1:
            continue
        layout.append(equation)
        waiting.append(equation.reads[0])
    if not layout:
        return stage
    order = {id(equation): k for k, equation in enumerate(first.program.equations)}
    before = sorted(layout, key=lambda equation: order[id(equation)])
    first = Segment((*before, *first.equations), first.inputs, first.outputs, first.program)
    return DiscoveredStage.of(stage.name, (first, *others), stage.in_tree, stage.out_tree, stage.active)
