"""What the chain rule leaves as factors: a weight's derivative of two, and a Hessian as a sum over the stages that bend."""

from jaxchain.factored.bending import Curvature, CurvatureRow, curvature
from jaxchain.factored.compared import compare_modes
from jaxchain.factored.hessians import hessian, hvp
from jaxchain.factored.kernel_operator import KernelOperator, ntk_operator
from jaxchain.factored.kernels import ntk, ntk_plan
from jaxchain.factored.laplacians import hessian_diagonal, laplacian
from jaxchain.factored.moments import GradientMoments, gradient_moments
from jaxchain.factored.planned import KernelPlan, KernelRow
from jaxchain.factored.samples import SampleNorms, sample_gradient_norms, sample_gradients
from jaxchain.factored.table import WeightRow, WeightSites, weight_sites
from jaxchain.factored.ways import HessianPlan, HessianStep

__all__ = [
    "Curvature",
    "CurvatureRow",
    "GradientMoments",
    "HessianPlan",
    "HessianStep",
    "KernelOperator",
    "KernelPlan",
    "KernelRow",
    "SampleNorms",
    "WeightRow",
    "WeightSites",
    "compare_modes",
    "curvature",
    "gradient_moments",
    "hessian",
    "hessian_diagonal",
    "hvp",
    "laplacian",
    "ntk",
    "ntk_operator",
    "ntk_plan",
    "sample_gradient_norms",
    "sample_gradients",
    "weight_sites",
]
