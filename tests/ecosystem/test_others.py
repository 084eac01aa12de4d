"""Programs that others wrote: the views of each agree with JAX. `experiments/ecosystem.py` runs all of them."""

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "experiments"))

from others import PROGRAMS
from others.views import CHEAP, views

pytestmark = pytest.mark.filterwarnings("ignore")  # what others' packages warn of is theirs


def look(program, names):
    if not program.installed:
        pytest.skip(f"{program.package} is not installed")
    if program.package in os.environ.get("JAXCHAIN_ECOSYSTEM_SEEN", "").split():
        pytest.skip(f"programs of {program.package} ran already")
    failures = {view: outcome for view, outcome in views(program, names) if outcome.failed}
    assert not failures, "\n".join(f"{view}: {o.words}\n{o.details}" for view, o in failures.items())


def named(name):
    return next(program for program in PROGRAMS if program.name == name)


def test_the_zoo_is_of_many_programs_and_packages():
    assert len({program.name for program in PROGRAMS}) == len(PROGRAMS) >= 44
    assert len({program.package for program in PROGRAMS}) >= 20


@pytest.mark.parametrize("program", [program for program in PROGRAMS if not program.slow], ids=str)
def test_the_chain_the_sweeps_and_the_jacobian_of_a_program_are_jaxs(program):
    look(program, CHEAP)


@pytest.mark.parametrize("program", [program for program in PROGRAMS if program.slow], ids=str)
def test_the_chain_of_a_large_program_is_the_program(program):
    look(program, ("discover",))


@pytest.mark.parametrize(
    "name",
    [
        "diffrax: constant steps",
        "equinox: nondifferentiable carry",
        "flax linen: GPT-2 blocks",
        "lineax: a constant matrix",
        "optimistix: root_find",
    ],
)
def test_the_trace_of_a_program_ends_in_jaxs_values_tangents_and_cotangents(name):
    look(named(name), ("trace",))


@pytest.mark.parametrize("name", ["equinox: error_if", "equinox: MLP", "jax: tridiagonal_solve", "rlax: V-trace"])
def test_samples_of_a_program_under_vmap_are_not_said_to_mix(name):
    look(named(name), ("batch",))
