"""A matrix as the report's page draws it: at most so many cells, each with an entry that is really there."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxchain.show.extremes import Floats, block_starts, extreme_of_blocks

__all__ = ["picture"]


def picture(
    matrix: Floats,
    side: int,
    *,
    columns: Sequence[int] | None = None,
    width: int | None = None,
    ruled: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """What the page needs to draw a matrix and to name every cell's place and value.

    Parameters
    ----------
    matrix
        (m, n), or (m, len(columns)) where only some columns were computed.
    side
        The most cells along one side; beyond it each cell is the entry of largest magnitude of its
        block, sign kept.
    columns
        Which of ``width`` columns the matrix holds; default: all.
    ruled
        Into how many rows and columns of blocks lines divide it; default: no lines.
    """
    m, n = matrix.shape
    cells = extreme_of_blocks(matrix, side, side)
    rows, starts = block_starts(m, side), block_starts(n, side)
    notes: list[str] = []
    sampled = columns is not None and width is not None and len(columns) < width
    if columns is not None and sampled:
        notes.append(f"Only {len(columns)} of {width} columns were computed, evenly spread.")
    if cells.size and cells.shape != matrix.shape:
        notes.append(
            f"Each cell shows the entry of largest |J| in its block of {-(-m // len(rows))} × {-(-n // len(starts))}."
        )
    double = not _fits_single(cells)
    return {
        "shape": [m, n if width is None else width],
        "cells": list(cells.shape),
        "rows": rows.tolist(),
        "columns": [int(columns[k]) for k in starts] if columns is not None else starts.tolist(),
        "sampled": sampled,
        "double": double,
        "values": base64.b64encode(cells.astype("<f8" if double else "<f4").tobytes()).decode("ascii"),
        "ruled": ruled,
        "note": " ".join(notes),
        "not_finite": int((~np.isfinite(matrix)).sum()),
    }


def _fits_single(cells: Floats) -> bool:
    """Whether float32 holds every finite entry without overflow or underflow."""
    strengths = np.abs(cells[np.isfinite(cells) & (cells != 0)])
    limits = np.finfo(np.float32)
    return not strengths.size or bool(strengths.min() >= limits.tiny and strengths.max() <= limits.max)
