"""Fitting reverse mode into memory: which states to keep, which stages to run again.

Read `schedule` first: the recurrence over plain integers; `rounds` is that of equal steps in a loop. `stages` makes
their numbers of a program, `inside` those of one stage, `loops` those of a ``scan``; `search` has the
least work for every number of bytes, `rebuild` runs what was chosen, `plan` and `checkpointed` are what a caller writes.
"""

from jaxchain.memory.checkpointed import checkpoint
from jaxchain.memory.plan import MemoryPlan, MemoryRow, memory_plan

__all__ = ["MemoryPlan", "MemoryRow", "checkpoint", "memory_plan"]
