"""The two factors of a weight's derivative, found in any program and kept apart: weight sites, samples' gradients."""

from jaxchain.factored.moments import GradientMoments, gradient_moments
from jaxchain.factored.samples import SampleNorms, sample_gradient_norms, sample_gradients
from jaxchain.factored.table import WeightRow, WeightSites, weight_sites

__all__ = [
    "GradientMoments",
    "SampleNorms",
    "WeightRow",
    "WeightSites",
    "gradient_moments",
    "sample_gradient_norms",
    "sample_gradients",
    "weight_sites",
]
