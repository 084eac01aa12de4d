"""The Jacobian lens: what a state deep inside a residual chain is disposed to become at its end, E[∂x_q/∂x_k] x_k.

`fit` averages the Jacobian over samples and positions, in one reverse sweep of the output basis a sample; a `Lens` reads
states with it. `load` and `merge` take up lenses fitted before, and `logit` is the lens that knows no Jacobian.

References: Anthropic, jacobian-lens, 2026 (github.com/anthropics/jacobian-lens); nostalgebraist, Interpreting GPT: the
logit lens, 2020.
"""

from jaxchain.lens.again import load, merge
from jaxchain.lens.fitting import fit
from jaxchain.lens.reading import Lens, LensRow
from jaxchain.lens.unembedding import logit

__all__ = ["Lens", "LensRow", "fit", "load", "logit", "merge"]
