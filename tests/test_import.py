"""What `import jaxchain` loads, and what it offers."""

import json
import subprocess
import sys

import pytest

import jaxchain as jc

SCRIPT = """
import json, sys
def heavy():
    return sorted({name.partition(".")[0] for name in sys.modules} & {"matplotlib", "rich", "sklearn", "tyro", "pandas"})
import jaxchain as jc
found = {"import": heavy()}
jc.Chain([jc.Stage("sin", abs)])
found["use"] = heavy()
jc.plot
found["plot"] = heavy()
print(json.dumps(found))
"""


UNCHANGED = """
import gc, json, locale, logging, os, signal, sys, threading, warnings
import jax, numpy as np, optax, scipy.sparse, scipy.special  # which have globals of their own
def state():
    return {
        "flags of JAX": {name: repr(value) for name, value in jax.config.values.items()},
        "filters of warnings": repr(warnings.filters),
        "environment": dict(os.environ),
        "errors of NumPy": repr(np.geterr()),
        "printing of NumPy": repr(np.get_printoptions()),
        "logging": [logging.root.level, len(logging.root.handlers), logging.getLogger("jax").level],
        "hooks": [repr(sys.excepthook), repr(sys.displayhook), repr(sys.breakpointhook)],
        "path": list(sys.path),
        "limits": [sys.getrecursionlimit(), gc.get_threshold(), gc.isenabled()],
        "interrupts": repr(signal.getsignal(signal.SIGINT)),
        "threads": threading.active_count(),
        "locale": locale.setlocale(locale.LC_ALL),
    }
before = state()
import jaxchain as jc
after = state()
# What it stands for, but what loads matplotlib and the like, which have globals of their own.
for name in set(jc.__all__) - {"plot"}:
    getattr(jc, name)
used = state()
print(json.dumps([[name for name in before if before[name] != later[name]] for later in (after, used)]))
"""


def test_importing_changes_nothing_that_others_share():
    run = subprocess.run([sys.executable, "-c", UNCHANGED], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [[], []]


@pytest.fixture(scope="module")
def loaded():
    run = subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_importing_loads_no_plotting_and_no_terminal_library(loaded):
    assert loaded["import"] == loaded["use"] == []


def test_plotting_is_loaded_when_first_used(loaded):
    assert loaded["plot"] == ["matplotlib"]


@pytest.mark.parametrize("name", jc.__all__)
def test_every_public_name_is_there(name):
    assert getattr(jc, name) is not None
    assert name in dir(jc)


def test_public_names_are_sorted_and_unique():
    assert sorted(set(jc.__all__)) == list(jc.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'jaxchain' has no attribute 'backward_sweep'"):
        jc.backward_sweep  # noqa: B018


def test_the_errors_are_value_errors():
    for error in (jc.StageError, jc.TangentMismatchError, jc.ParameterMismatchError):
        assert issubclass(error, ValueError)


def test_the_version_is_the_packages():
    from importlib.metadata import version

    assert version("jaxchain") == jc.__version__


def test_the_package_is_typed():
    from importlib.resources import files

    assert files("jaxchain").joinpath("py.typed").is_file()
