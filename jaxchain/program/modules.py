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
        self.held: dict[int, Any] = {}  # no other module can come to have the identity of one that is held

    def scope(self, module: Any) -> tuple[Path, str]:
        """Where a module lies, and the rest of it in the module that calls it."""
        outer = self.under_way[-1] if self.under_way else ()
        if not self.under_way or id(module) not in self.paths:  # an outermost one may have got more parts
            for path, inner in [((), module), *sys.modules["flax.nnx"].iter_graph(module)]:
                self.held[id(inner)] = inner
                self.paths.setdefault(id(inner), (*outer, type(module).__name__, *path))
        path = self.paths[id(module)]
        return path, _words(path[len(outer) :] if path[: len(outer)] == outer else path)


def _words(path: Path) -> str:
    """``layers[3].mlp``, as one writes it."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".").replace("/", "_")


_calls: ContextVar[_Calls | None] = ContextVar("calls", default=None)
_lock, _tracing, _own = threading.Lock(), [0], dict[tuple[type, str], Callable[..., Any]]()


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
        call: Any = held()  # whoever traces it holds it
        if inspect.ismethod(call):  # bound before the classes got their wrappers
            call = partial(_scoped(call.__func__), call.__self__)
        with _scopes():
            return call(*args)

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
            for name, method in list(vars(cls).items()):
                if _computes(cls, name) and inspect.isfunction(method) and (cls, name) not in _own:
                    _own[cls, name] = method
                    setattr(cls, name, _scoped(method))
    token = _calls.set(_Calls())
    try:
        yield
    finally:
        _calls.reset(token)
        with _lock:
            _tracing[0] -= 1
            while _own and not _tracing[0]:
                (cls, name), method = _own.popitem()
                setattr(cls, name, method)


def _computes(cls: type, name: str) -> bool:
    """Whether a method may be what a model is called by: of flax's own modules ``__call__`` alone."""
    return name == "__call__" or not (name.startswith("__") or cls.__module__.partition(".")[0] == "flax")


def _below(cls: type) -> Iterator[Any]:
    for child in cls.__subclasses__():
        yield child
        yield from _below(child)


def _scoped(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def scoped(*args: Any, **kwargs: Any) -> Any:
        calls, module = _calls.get(), args[0] if args else None
        if calls is None or not isinstance(
            module, sys.modules["flax.nnx"].Module
        ):  # another thread's; no method's call
            return method(*args, **kwargs)
        path, words = calls.scope(module)
        if calls.under_way and path == calls.under_way[-1]:  # a method that calls another
            return method(*args, **kwargs)
        calls.under_way.append(path)
        try:
            with jax.named_scope(words or type(module).__name__):
                return method(*args, **kwargs)
        finally:
            calls.under_way.pop()

    return scoped
