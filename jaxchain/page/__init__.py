"""The report and the comparison: self-contained pages about one chain or two; HTML is in ``templates/``."""

from jaxchain.page.beside import PairRow, SideBySide, StageNorms
from jaxchain.page.comparing import compare
from jaxchain.page.writing import report

__all__ = ["PairRow", "SideBySide", "StageNorms", "compare", "report"]
