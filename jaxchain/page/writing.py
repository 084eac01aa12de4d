"""`report`: one self-contained page that shows a chain, its derivatives and their cost.

No network, no server: style, script and data are in the file. It is written beside its place and
renamed, so that there is never half a page.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, overload

try:
    import fcntl
except ImportError:  # not everywhere is POSIX
    fcntl = None

from jaxchain.arguments import check_numbers, looked_along
from jaxchain.chain import Chain
from jaxchain.checks import check_function, flag, path_to_write, text
from jaxchain.discovery import discover
from jaxchain.discovery.group import Granularity, check_granularity
from jaxchain.page.content import page
from jaxchain.show.html import render
from jaxchain.show.progress import telling

__all__ = ["InlinePage", "check_target", "report", "to_html", "write"]

OURS = '<meta name="generator" content="jaxchain'


@dataclass(frozen=True)
class InlinePage:
    """A page that shows itself in a notebook.

    Attributes
    ----------
    path
        The file that it was written to.
    html
        The page.
    """

    path: Path
    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        return render("frame.html", html=self.html, title=self.path.name)


@overload
def report(
    fun: Callable[..., Any], *args: Any, path: str | os.PathLike[str] = ..., title: str | None = ...,
    argnum: int | None = ..., granularity: Granularity | None = ..., tangent: Any = ..., cotangent: Any = ..., inline: Literal[False] = ..., force: bool = ...,
    progress: bool = ...,
) -> Path: ...  # fmt: skip


@overload
def report(
    fun: Callable[..., Any], *args: Any, path: str | os.PathLike[str] = ..., title: str | None = ...,
    argnum: int | None = ..., granularity: Granularity | None = ..., tangent: Any = ..., cotangent: Any = ..., inline: Literal[True], force: bool = ...,
    progress: bool = ...,
) -> InlinePage: ...  # fmt: skip


def report(
    fun: Callable[..., Any],
    *args: Any,
    path: str | os.PathLike[str] = "report.html",
    title: str | None = None,
    argnum: int | None = None,
    granularity: Granularity | None = None,
    tangent: Any = None,
    cotangent: Any = None,
    inline: bool = False,
    force: bool = False,
    progress: bool = False,
) -> Path | InlinePage:
    """Write one self-contained HTML page about ``fun`` at ``args``: chain, Jacobians, sweeps, modes, programs.

    Parameters
    ----------
    fun
        A chain, or any JAX function, whose chain is then discovered.
    args
        Its arguments, as arrays: the page shows numbers.
    path
        The file to write. One that `report` wrote earlier is replaced.
    title
        Of the page; default: the function's name, or the chain's ends.
    argnum
        Which argument is the chain input, where ``fun`` is not a chain; default: the last.
    granularity
        How coarse its stages are then, as in `jaxchain.discover`.
    tangent, cotangent
        The directions that the sweeps follow, like the chain input and output; default: random
        directions of length one, and 1 for a single number.
    inline
        Return what shows the page in a notebook, in a frame.
    force
        Replace a file that is not ours, too.
    progress
        Show on standard error what is under way.

    Returns
    -------
    Path or InlinePage
        The file; with ``inline`` a page that shows itself, whose ``.path`` is the file.

    Raises
    ------
    FileExistsError
        If there is a file that `report` did not write, unless ``force``.
    FileNotFoundError, IsADirectoryError, PermissionError
        If the folder does not exist, ``path`` is one, or the folder cannot be written to.
    TypeError, ValueError
        As `jaxchain.discover`; if an argument is no array.
    TangentMismatchError
        If a direction does not look like the state that it belongs to.

    Notes
    -----
    It computes with numbers and compiles, so it is no part of a traced program. Large matrices are
    shown by the entry of largest magnitude of each block; where accumulating every local Jacobian
    would take too long, some of its columns are. The page says so wherever it applies.

    Examples
    --------
    >>> jc.report(lambda x: jnp.sin(x) * x, jnp.float32(2.0), path="sine.html").name
    'sine.html'
    """
    text("title", title, optional=True)
    flag("inline", inline)
    target = check_target(path, force=force, progress=progress)
    check_function(fun, "report", args)
    check_numbers(args, "A report")
    at, coarse = looked_along(fun, argnum, args), check_granularity(granularity, fun)
    chain = fun if isinstance(fun, Chain) else discover(fun, *args, argnum=at, granularity=coarse)
    title = title or _title(fun)
    with telling(progress) as say:
        data = page(chain, args, title, fun=fun, tangent=tangent, cotangent=cotangent, say=say)
        say("Writing the page")
        html = to_html(data)
        write(target, html)
    return InlinePage(target, html) if inline else target


def _title(fun: Callable[..., Any]) -> str:
    if isinstance(fun, Chain):
        return fun.names[0] if len(fun) == 1 else f"{fun.names[0]} … {fun.names[-1]}"
    owner = getattr(fun, "__self__", None)  # a bound method, such as a Flax module's apply
    name = type(fun).__name__ if owner is None else type(owner).__name__
    own = getattr(fun, "__name__", name) if owner is None else name
    return "function" if own == "<lambda>" else str(own)


def to_html(data: dict[str, Any], template: str = "report/page.html") -> str:
    """The page that shows ``data``, a report's or another's."""
    from jaxchain import __version__

    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    block = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")
    return render(template, data=data, block=block, version=__version__)


def check_target(path: str | os.PathLike[str], *, force: bool, progress: bool, kind: str = "report") -> Path:
    """The file that a page is to be written to; ``kind`` is what the page is called.

    Raises
    ------
    FileExistsError, FileNotFoundError, IsADirectoryError, PermissionError
        If it cannot be written, or is not ours and not ``force``; says which, and the way out.
    TypeError, ValueError
        If ``path`` is no path, or an option no yes or no.
    """
    target = path_to_write("path", path)
    flag("force", force)
    flag("progress", progress)
    if target.is_dir():
        msg = f"The {kind} is one file, but {target} is a folder. Name a file in it: {target / f'{kind}.html'}."
        raise IsADirectoryError(msg)
    if not target.parent.is_dir():
        msg = f"The folder {target.parent} for the {kind} does not exist. Make it first, or choose another path."
        raise FileNotFoundError(msg)
    if not os.access(target.resolve().parent, os.W_OK):
        msg = f"The folder {target.resolve().parent} cannot be written to. Choose another path for the {kind}."
        raise PermissionError(msg)
    if target.exists() and not force and not _is_ours(target):
        msg = f"{target} exists, and jaxchain did not write it. Choose another path, or replace it with force=True."
        raise FileExistsError(msg)
    return target


def _is_ours(target: Path) -> bool:
    return target.is_file() and OURS.encode() in target.read_bytes()[:4096]


def write(target: Path, text: str) -> None:
    """Write beside the target, a link's own target, and rename: whatever happens there is never half a page."""
    target = target.resolve()
    _clear(target.parent)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".jaxchain-", suffix=".part")
        _write_and_rename(handle, Path(name), target, text)
    except OSError as error:
        reason = f"{error.strerror}: the page was not written. Make room, or choose another path"
        raise type(error)(error.errno, reason, str(target)) from error


def _clear(folder: Path) -> None:
    """Remove what reports that were killed left behind; what another is writing is locked."""
    for part in folder.glob(".jaxchain-*.part"):
        with contextlib.suppress(OSError), part.open("ab") as file:
            lock(file)
            part.unlink()


def lock(file: IO[Any]) -> None:
    """Lock a file until it is closed, where the system can; ``BlockingIOError`` if another has."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _write_and_rename(handle: int, part: Path, target: Path, text: str) -> None:
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            lock(file)
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        part.chmod(0o666 & ~mask)  # mkstemp's files are the owner's alone
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
