"""A JAX program as data: one flat list of equations, its source lines, its segments. Nothing of derivatives or chains."""
