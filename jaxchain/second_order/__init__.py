"""Second derivatives: a Hessian is a sum over the stages that bend, gathered in the cheapest order."""

from jaxchain.second_order.bending import Curvature, CurvatureRow, curvature
from jaxchain.second_order.compared import compare_modes
from jaxchain.second_order.hessians import hessian, hvp
from jaxchain.second_order.laplacians import hessian_diagonal, laplacian
from jaxchain.second_order.ways import HessianPlan, HessianStep

__all__ = [
    "Curvature",
    "CurvatureRow",
    "HessianPlan",
    "HessianStep",
    "compare_modes",
    "curvature",
    "hessian",
    "hessian_diagonal",
    "hvp",
    "laplacian",
]
