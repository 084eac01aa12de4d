"""Curvature in parameters, as operators: Gauss-Newton and Fisher matrices, their diagonals and Kronecker factors."""

from jaxchain.gauss_newton.kronecker import Kronecker, KroneckerBlock
from jaxchain.gauss_newton.operators import GaussNewton
from jaxchain.gauss_newton.parameters import fisher, ggn

__all__ = ["GaussNewton", "Kronecker", "KroneckerBlock", "fisher", "ggn"]
