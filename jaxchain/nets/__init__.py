"""Networks as chains of pure functions: for one sample, batched by ``jax.vmap``.

A dense layer and an activation are stages of their own; a residual block, an attention block and
a recurrent layer are one stage each. Weights are drawn so that mean-field theory can be tested on
them: ``sigma_w`` and ``sigma_b`` are the σ_w and σ_b of Poole et al. (arXiv 1606.05340). Builds
on `chain`.
"""

from jaxchain.nets.conv import conv_net
from jaxchain.nets.dense import autoencoder, mlp, residual_net
from jaxchain.nets.layers import ACTIVATIONS, INITIALISERS
from jaxchain.nets.sequence import rnn, transformer

__all__ = ["ACTIVATIONS", "INITIALISERS", "autoencoder", "conv_net", "mlp", "residual_net", "rnn", "transformer"]
