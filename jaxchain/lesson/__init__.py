"""The lesson: what the chain rule is and how it is applied in deep learning, as one page that answers and asks.

A module a chapter, named by its idea; each returns its numbers as plain data with the lines that made them.
"""

from jaxchain.lesson.writing import write_lesson

__all__ = ["write_lesson"]
