"""The report: one self-contained page about a chain, its derivatives and their cost; HTML is in ``templates/``."""

from jaxchain.page.writing import report

__all__ = ["report"]
