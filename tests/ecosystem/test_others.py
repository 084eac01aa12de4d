"""Programs that others wrote: the views of each agree with JAX. `experiments/ecosystem.py` runs all of them."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "experiments"))

from others import PROGRAMS
from others.views import CHEAP, views

pytestmark = pytest.mark.filterwarnings("ignore")  # what others' packages warn of is theirs


def test_the_zoo_is_of_many_programs_and_packages():
    assert len({program.name for program in PROGRAMS}) == len(PROGRAMS) >= 44
    assert len({program.package for program in PROGRAMS}) >= 20


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_views_of_a_program_agree_with_jax(program):
    if not program.installed:
        pytest.skip(f"{program.package} is not installed")
    failures = {view: outcome.details for view, outcome in views(program, CHEAP) if outcome.failed}
    assert not failures, "\n".join(f"{view}:\n{details}" for view, details in failures.items())
