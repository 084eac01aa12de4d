"""Derivatives of weights and curvature, factored along the chain."""
