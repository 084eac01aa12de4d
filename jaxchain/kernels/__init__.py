"""The neural tangent kernel, from factors of weights' derivatives: its plan, its blocks, and as an operator."""

from jaxchain.kernels.kernel_operator import KernelOperator, ntk_operator
from jaxchain.kernels.planned import KernelPlan, KernelRow
from jaxchain.kernels.tangent import ntk, ntk_plan

__all__ = ["KernelOperator", "KernelPlan", "KernelRow", "ntk", "ntk_operator", "ntk_plan"]
