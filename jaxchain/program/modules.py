"""Modules of Flax nnx by their attributes: nnx sets no named scopes, but knows where every module lies."""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any
from weakref import WeakKeyDictionary

import jax

__all__ = ["scoped_by_attribute"]

Path = tuple[str | int, ...]
"""Attributes and indices from the module that was called first: ``("layers", 3, "mlp")``."""


class _Calls:
    """The modules that one trace has called: where each lies, and those whose call is under way."""

    def __init__(self) -> None:
        self.paths, self.under_way = dict[int, Path](), list[Path]()
        self.held: list[Any] = []  # no other module can come to have the identity of one that is held

    def scope(self, module: Any) -> tuple[Path, str]:
        """Where a module lies, and the rest of it in the module that calls it."""
        outer = self.under_way[-1] if self.under_way else ()
        if id(module) not in self.paths:
            self.held.append(module)
            for path, inner in sys.modules["flax.nnx"].iter_graph(module):
                self.held.append(inner)
                self.paths.setdefault(id(inner), (*outer, type(module).__name__, *path))
        path = self.paths[id(module)]
        return path, _words(path[len(outer) :] if path[: len(outer)] == outer else path)


def _words(path: Path) -> str:
    """``layers[3].mlp``, as one writes it."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".").replace("/", "_")


_calls: ContextVar[_Calls | None] = ContextVar("calls", default=None)
_lock, _tracing, _own = threading.Lock(), [0], dict[type, Callable[..., Any]]()


def scoped_by_attribute(fun: Callable[..., Any]) -> Callable[..., Any]:
    """``fun``; what an nnx module computes in it lies in a scope: ``layers[3]``, and ``mlp`` in that."""
    if "flax.nnx" not in sys.modules:
        return fun
    try:
        # One function for each: JAX keeps traces by function, and those of ``fun`` itself have no such scopes.
        with _lock:
            return _known.get(fun) or _known.setdefault(fun, _named(fun))
    except TypeError:  # neither hashed nor referred to weakly
        return _named(fun)


_known: WeakKeyDictionary[Callable[..., Any], Callable[..., Any]] = WeakKeyDictionary()


def _named(fun: Callable[..., Any]) -> Callable[..., Any]:
    try:
        held = weakref.ref(fun)  # what is kept for a function must not keep the function
    except TypeError:
        held = partial(lambda fun: fun, fun)

    def named(*args: Any) -> Any:
        with _scopes():
            return held()(*args)  # pyright: ignore[reportOptionalCall]  # whoever traces it holds it

    with suppress(TypeError, ValueError):  # a built-in has no signature
        named.__signature__ = inspect.signature(fun)  # pyright: ignore[reportFunctionMemberAccess]
    named.__name__ = getattr(fun, "__name__", type(fun).__name__)
    return named


@contextmanager
def _scopes() -> Generator[None]:
    nnx = sys.modules["flax.nnx"]
    with _lock:  # threads may trace side by side; the last one takes the wrappers away
        _tracing[0] += 1
        for cls in _below(nnx.Module):
            if inspect.isfunction(vars(cls).get("__call__")) and cls not in _own:
                _own[cls] = vars(cls)["__call__"]
                cls.__call__ = _scoped(_own[cls])
    token = _calls.set(_Calls())
    try:
        yield
    finally:
        _calls.reset(token)
        with _lock:
            _tracing[0] -= 1
            while _own and not _tracing[0]:
                cls, call = _own.popitem()
                cls.__call__ = call


def _below(cls: type) -> Iterator[Any]:
    for child in cls.__subclasses__():
        yield child
        yield from _below(child)


def _scoped(call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def scoped(module: Any, *args: Any, **kwargs: Any) -> Any:
        calls = _calls.get()
        if calls is None:  # another thread's
            return call(module, *args, **kwargs)
        path, words = calls.scope(module)
        calls.under_way.append(path)
        try:
            with jax.named_scope(words or type(module).__name__):
                return call(module, *args, **kwargs)
        finally:
            calls.under_way.pop()

    return scoped
