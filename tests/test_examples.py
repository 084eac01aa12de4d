"""Every public docstring has an example, and every example in a docstring says what happens."""

import doctest
import importlib
import inspect
import pkgutil

import matplotlib as mpl

mpl.use("Agg")

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest

import jaxchain as jc

NAMES = {"jc": jc, "jax": jax, "jnp": jnp, "np": np, "optax": optax}
"""What an example may use without importing it."""

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
"""For tables, whose columns may be indented, and for what differs from machine to machine."""


def public():
    """Name → every function and class with a public name, and the methods of these classes.

    Properties and operators are told of by their class.
    """
    tops = {f"jc.{name}": getattr(jc, name) for name in jc.__all__}
    modules = [(name, module) for name, module in tops.items() if inspect.ismodule(module)]
    tops |= {f"{name}.{part}": getattr(module, part) for name, module in modules for part in module.__all__}
    classes = {name: found for name, found in tops.items() if inspect.isclass(found)}
    functions = {name: found for name, found in tops.items() if inspect.isfunction(found)}
    methods = {
        f"jc.{method.__qualname__}": method  # of an inherited method, the class that wrote it
        for owner in classes.values()
        for name, method in inspect.getmembers(owner, lambda part: inspect.isfunction(part) or inspect.ismethod(part))
        if not name.startswith("_") and method.__module__.startswith("jaxchain")
    }
    return functions | classes | methods


def private():
    """The doctests of everything else in the package."""
    walked = pkgutil.walk_packages(jc.__path__, "jaxchain.")
    modules = [importlib.import_module(found.name) for found in walked if not found.name.endswith("__main__")]
    known = {found.__doc__ for found in PUBLIC.values()}
    for module in modules:
        for test in doctest.DocTestFinder().find(module, globs=vars(module) | NAMES):
            if test.examples and test.docstring not in known:
                yield test


def own_test(name, found):
    """The doctest of an object's own docstring, without those of its methods."""
    return doctest.DocTestFinder(recurse=False, exclude_empty=False).find(found, name, module=False, globs=NAMES)[0]


PUBLIC = public()
TESTS = [own_test(name, found) for name, found in PUBLIC.items()]


@pytest.fixture
def _a_place_of_its_own(tmp_path, monkeypatch):
    """Files go to an empty folder, tables are as wide here as anywhere, figures are closed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    yield
    plt.close("all")


def test_every_public_docstring_has_an_example():
    assert [test.name for test in TESTS if not test.examples] == []


def test_examples_are_the_last_section():
    titles = ("Parameters", "Attributes", "Returns", "Raises", "Warns", "Notes", "References")
    docs = {name: inspect.getdoc(found) for name, found in PUBLIC.items()}
    late = [
        name
        for name, doc in docs.items()
        if "Examples\n---" not in doc or any(f"\n{title}\n---" in doc.partition("Examples\n---")[2] for title in titles)
    ]
    assert late == []


@pytest.mark.usefixtures("_a_place_of_its_own")
@pytest.mark.parametrize("test", [test for test in (*TESTS, *private()) if test.examples], ids=lambda test: test.name)
def test_an_example_prints_what_it_says(test):
    said = []
    failed, _ = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append)
    assert not failed, "".join(said)
