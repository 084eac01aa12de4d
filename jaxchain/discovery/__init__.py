"""Any JAX function as a chain: flatten its program, cut it, name the pieces."""

from jaxchain.discovery.find import discover

__all__ = ["discover"]
