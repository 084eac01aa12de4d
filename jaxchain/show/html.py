"""HTML is made here: Jinja2 templates, every value escaped; used by notebooks and by the report.

Templates, styles and scripts are files of their own, in ``templates/``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jaxchain.show.escape import escaped
from jaxchain.show.values import summary

__all__ = ["array_html", "render"]

TEMPLATES = Path(__file__).parents[1] / "templates"

WHOLE = 1 << 16
"""The most entries of an array that a notebook is given in full."""


def render(template: str, **values: Any) -> str:
    """The HTML of one template, by its path within ``templates/``; values are escaped, never trusted."""
    return _environment().get_template(template).render(**values)


RED_IS_POSITIVE = [
    (5, 48, 97), (33, 102, 172), (67, 147, 195), (146, 197, 222), (209, 229, 240), (247, 247, 247),
    (253, 219, 199), (244, 165, 130), (214, 96, 77), (178, 24, 43), (103, 0, 31),
]  # fmt: skip
"""ColorBrewer's RdBu from blue to red, as on pages and in figures."""


def array_html(array: Any, caption: str, axes: Sequence[str] = ()) -> str:
    """An array under its caption: a picture to hover over where treescope is installed, else a line of text.

    Parameters
    ----------
    array
        Real numbers.
    caption
        What it is.
    axes
        What each axis counts; none: told by number.
    """
    from markupsafe import Markup

    try:
        import treescope
    except ImportError:
        return render("array.html", caption=caption, picture=summary(array))
    with warnings.catch_warnings():  # it looks through all of NumPy, what is deprecated there included
        warnings.simplefilter("ignore", DeprecationWarning)
        figure = treescope.render_array(
            array,
            truncate=array.size > WHOLE,
            continuous=True,
            around_zero=True,
            colormap=RED_IS_POSITIVE,
            axis_labels=dict(enumerate(axes)) or None,
        )
    return render("array.html", caption=caption, picture=Markup(figure._repr_html_()))  # pyright: ignore[reportPrivateUsage]


def _as_text(value: Any) -> Any:
    """What is put into a page, its control characters shown as their escapes; markup of ours as it is."""
    return escaped(value, lines=True) if isinstance(value, str) and not hasattr(value, "__html__") else value


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment: Any = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_as_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def source(name: str) -> Markup:
        """One of our own style or script files, which hold no one's data, as it is."""
        return Markup((TEMPLATES / name).read_text(encoding="utf-8"))

    environment.globals.update(source=source)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}  # by default it sorts keys, and order is meant
    return environment
