"""What the words of a command line stand for: a function, and the arguments to look at it with.

Names are looked up as ``python -m`` would, the current directory first. JAX is imported with what a
name stands for, not before.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from jaxchain.cli.outcome import place, said

if TYPE_CHECKING:
    import jax

    from jaxchain.chain import Chain

__all__ = ["Target", "Targets", "at_most_one", "distinct_names", "resolve"]


@dataclass(frozen=True)
class Target:
    """A function, and the arguments to look at it with."""

    target: Annotated[Positional[str], arg(metavar="TARGET")]
    """The function or chain: module:function, path/file.py:function or module:object.method. Importing it runs its code."""

    args: Annotated[str | None, arg(metavar="NAME")] = None
    """Its arguments: module:name of a tuple, or of a function that returns one. Default: its attribute example_args."""

    shape: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="SIZES")] = ()
    """Random normal arguments instead: 784 or 3,4 or "" for a scalar, once for each. A net makes its own parameters."""

    at: Annotated[UseAppendAction[tuple[float, ...]], arg(metavar="NUMBER")] = ()
    """Scalar arguments instead, one number each: --at 2 --at 5."""

    dtype: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: float32)")] = None
    """Of scalar and random arguments; float64 and complex128 turn JAX's 64-bit mode on."""

    seed: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: 0)")] = None
    """Of random arguments and parameters."""

    argnum: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint="(default: a chain's own input, else the last)")
    ] = None
    """Position of the argument to differentiate with respect to."""


@dataclass(frozen=True)
class Targets(Target):
    """Two functions and their arguments, or one function at two arguments."""

    other: Annotated[Positional[str | None], arg(metavar="TARGET_B", help_behavior_hint="")] = None
    """The second function. Default: the first, at the arguments of --args-b."""

    args_b: Annotated[str | None, arg(metavar="NAME")] = None
    """Arguments of the second, named as for --args. Default: found as those of the first."""

    def second(self) -> Target:
        """The second of the two: another function, other arguments, or both.

        Raises
        ------
        ValueError
            If it is the first again.
        """
        if self.other is None and self.args_b is None:
            msg = "There is nothing to compare: give a second function (TARGET TARGET_B), or other arguments (--args-b module:name)."
            raise ValueError(msg)
        first = replace(self, target=self.other or self.target)
        return first if self.args_b is None else replace(first, args=self.args_b, shape=(), dtype=None, seed=None)


def resolve(what: Target) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The function and its arguments.

    Raises
    ------
    ValueError
        If a name cannot be imported, is missing or stands for something else; if the arguments are missing, or not as
        many as the function takes; if options of random arguments are given without any.
    """
    at_most_one(args=what.args, shape=what.shape, at=what.at)
    of_some = () if what.shape else ("seed",) if what.at else ("dtype", "seed")
    given = [f"--{name}" for name in of_some if getattr(what, name) is not None]
    if given:
        are = "they are" if len(given) > 1 else "it is"
        msg = f"{_listed(given)} would change nothing: {are} of random arguments. Ask for some with --shape, or leave {_listed(given)} out."
        raise ValueError(msg)
    if what.dtype in ("float64", "complex128"):
        import jax

        jax.config.update("jax_enable_x64", True)  # before constants of the module are made
    fun = _function(what.target)
    return fun, _arguments(fun, what)


def at_most_one(**options: object) -> None:
    """Refuse options that exclude each other."""
    given = [f"--{name}" for name, value in options.items() if value not in (None, False, ())]
    if len(given) > 1:
        msg = f"{_listed(given)} exclude each other: leave out all but one."
        raise ValueError(msg)


def distinct_names(first: Target, second: Target) -> tuple[str, str]:
    """What two targets are called: the ends of their names, or of their arguments', where these differ."""
    for pair in ((first.target, second.target), (first.args or "example_args", second.args or "example_args")):
        short = [name.rpartition(":")[2] for name in pair]
        for a, b in (short, pair):
            if a != b:
                return a, b
    return "a", "b"


def _function(name: str) -> Callable[..., Any]:
    """The function or chain that a TARGET names."""
    fun = _named(name, "function")
    wanted = "TARGET is a function or a chain"
    if isinstance(fun, type):
        msg = f"{name} is a class. {wanted}: name an instance of it, or a method ({name}.method)."
        raise ValueError(msg)
    if not callable(fun):
        msg = f"{name} is {_short(fun)}, which cannot be called. {wanted}: name one."
        raise ValueError(msg)
    return fun


def _arguments(fun: Callable[..., Any], what: Target) -> tuple[Any, ...]:
    """The arguments given by name, by shape, or by the function itself."""
    if what.args is not None:
        args = _tuple(_named(what.args, "example_args"), what.args)
    elif what.shape:
        args = _random(fun, what)
    elif what.at:
        args = _numbers(what)
    elif (own := getattr(fun, "example_args", None)) is not None:
        args = _tuple(own, f"{what.target}.example_args")
    else:
        raise ValueError(_wanted(fun, what, "none were given"))
    try:
        inspect.signature(fun).bind(*args)
    except TypeError as error:
        were = "was" if len(args) == 1 else "were"
        raise ValueError(_wanted(fun, what, f"{len(args)} {were} given ({error})")) from error
    except ValueError:  # a built-in function without a signature: its call will tell
        pass
    return args


def _tuple(value: Any, name: str) -> tuple[Any, ...]:
    value = value() if callable(value) else value
    if not isinstance(value, tuple):
        msg = f"{name} gives {_short(value)}, but arguments are a tuple, one entry for each: (x,) or (params, x)."
        raise ValueError(msg)
    return value


def _dtype(what: Target) -> Any:
    """The floating or complex type that is asked for."""
    import jax.numpy as jnp

    try:
        dtype = jnp.dtype(what.dtype or "float32")
    except TypeError:
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        numbers = "numbers given with --at" if what.at else "random normal numbers"
        msg = f"--dtype is {what.dtype!r}, but {numbers} have a floating or complex type, such as float32."
        raise ValueError(msg)
    return dtype


def _numbers(what: Target) -> tuple[Any, ...]:
    """The scalar arguments."""
    import jax.numpy as jnp

    return tuple(jnp.asarray(number, _dtype(what)) for number in what.at)


def _random(fun: Callable[..., Any], what: Target) -> tuple[Any, ...]:
    import jax

    from jaxchain.chain import Chain

    dtype = _dtype(what)
    key, *keys = jax.random.split(jax.random.key(what.seed or 0), len(what.shape) + 1)
    values = [jax.random.normal(k, _shape(text), dtype) for k, text in zip(keys, what.shape, strict=True)]
    return (*_parameters(fun, key), *values) if isinstance(fun, Chain) else tuple(values)


def _shape(text: str) -> tuple[int, ...]:
    sizes = [] if text.strip() in ("", "scalar") else text.split(",")
    if not all(size.strip().isdecimal() for size in sizes):
        msg = f'--shape is {text!r}, but a shape is sizes with commas between them: 784 or 3,4, or "" for a scalar.'
        raise ValueError(msg)
    shape = tuple(map(int, sizes))
    if math.prod(shape) > 2**40:
        msg = f"--shape is {text!r}, which is more numbers than memory holds."
        raise ValueError(msg)
    return shape


def _parameters(chain: Chain, key: jax.Array) -> tuple[dict[str, Any], ...]:
    """Fresh parameters, if the chain takes any."""

    def owns(stage: Any) -> bool:
        return stage.init is not None or any(map(owns, getattr(stage, "parts", ())))

    return (chain.init(key),) if any(map(owns, chain)) else ()


def _wanted(fun: Callable[..., Any], what: Target, given: str) -> str:
    """The sentence about missing or superfluous arguments, with the three ways to give them."""
    home, takes = what.target.rpartition(":")[0], _takes(fun)
    if takes == "no arguments":
        return f"{what.target} takes no arguments, so there is nothing to differentiate with respect to. Name a function that takes some."
    return (
        f"{what.target} takes {takes}, but {given}. Give random ones (--shape 784, once for each argument, "
        f'--shape "" for a scalar), numbers (--at 2, once for each scalar), the name of a tuple of them (--args {home}:example_args), or let the function have '
        "them as its attribute example_args."
    )


def _takes(fun: Callable[..., Any]) -> str:
    """``2 arguments, w and x (and may take y)``."""
    from jaxchain.chain import Chain

    if isinstance(fun, Chain):
        return "the state alone, or its parameters and the state"
    try:
        parameters = inspect.signature(fun).parameters.values()
    except ValueError:
        return "arguments"
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    more = [
        {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "") + p.name for p in parameters if p not in required
    ]
    words = f"{len(required) or 'no'} argument{'s' * (len(required) != 1)}"
    names = [f"{p.name} by keyword alone (bind it first)" if p.kind is p.KEYWORD_ONLY else p.name for p in required]
    return words + f", {_listed(names)}" * bool(names) + f" (and may take {_listed(more)})" * bool(more)


def _named(name: str, example: str) -> Any:
    """What a name such as ``module:net.apply`` stands for."""
    home, _, path = name.rpartition(":")
    if not home or not path:
        kind = "function" if example == "function" else "value"
        msg = f"{name!r} names no {kind} in a module: write module:{example} or path/file.py:{example}."
        raise ValueError(msg)
    value: Any = _module(home)
    owner = home
    for part in path.split("."):
        try:
            value = getattr(value, part)
        except AttributeError as error:
            public = [other for other in dir(value) if not other.startswith("_")]
            near = get_close_matches(part, public, n=3) or _of_its_own(value, public)
            msg = f"{owner} has no {part!r}. " + (f"Nearest: {', '.join(near)}." if near else "It has no public names.")
            raise ValueError(msg) from error
        owner += f"{':' if owner == home else '.'}{part}"
    return value


def _of_its_own(value: Any, names: Sequence[str]) -> list[str]:
    """Some functions that a module defines itself, else some of its names."""
    own = [n for n in names if getattr(getattr(value, n, None), "__module__", "") == getattr(value, "__name__", None)]
    return (own or list(names))[:5]


def _module(name: str) -> ModuleType:
    """The module of this name, or in this file."""
    is_file = name.endswith(".py") or os.sep in name
    if is_file and not (Path(name).is_file() and name.endswith(".py")):
        msg = f"There is no Python file {name}. A path is relative to the current directory, {Path.cwd()}."
        raise ValueError(msg)
    try:
        with _importable(Path.cwd()):
            return _from_file(Path(name).resolve()) if is_file else importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may do anything when imported, even exit
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            msg = f"There is no module {missing!r} in the current directory or among the installed packages. A file is named by its path: path/{missing}.py:function."
        else:
            msg = f"{name} fails when it is imported: {type(error).__name__}: {said(error)}{place(error)}"
        raise ValueError(msg) from error


@contextlib.contextmanager
def _importable(folder: Path) -> Generator[None]:
    """While a target is imported its folder comes first, as for ``python path``; then last.

    What jaxchain itself loads later, such as rich, is not to be some file of that name beside the target.
    """
    import jax  # noqa: F401  # pyright: ignore[reportUnusedImport]  # likewise

    place = str(folder)
    if place in sys.path:
        yield
        return
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)
        sys.path.append(place)


@functools.lru_cache(maxsize=64)
def _from_file(path: Path) -> ModuleType:
    """Run a file as a module, once, its folder importable as ``python path`` makes it."""
    with _importable(path.parent):
        return _run_file(path)


def _run_file(path: Path) -> ModuleType:
    name = path.stem if path.stem not in sys.modules else f"jaxchain_target_{path.stem}"  # it may be called json.py
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _short(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '…'}, of type {type(value).__name__}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
