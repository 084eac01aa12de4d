"""The house: which file may import which, and what is done in one file alone. Read from the source, nothing is run."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import jaxchain

HOUSE = Path(jaxchain.__file__).parent

ROOMS = """
    show
    errors checks collector files
    patterns
    program
    cost
    stage sides chain arguments meshes
    coordinates derivative
    discovery
    samples
    nets
    structure swept sweep
    jacobians
    second_order
    factored
    kernels
    gauss_newton
    signal
    lens
    diagnosis
    memory
    batches fitted steps resume train digits
    explore
    page
    lesson
    plot
    __init__
    cli __main__
""".split()
"""Every room, the ground floor first. `jaxchain` itself, which hands out the public names, is for the command line alone."""

VERSION = "jaxchain.__version__"
"""A string, which the page prints; whoever reads it has imported no room."""

INDEPENDENT = {frozenset(["cost", "show"])}
"""Rooms of which neither knows the other."""

DERIVATIVES = {"jvp", "vjp", "linearize", "jacfwd", "jacrev", "linear_transpose", "grad", "value_and_grad", "hessian"}

DIFFERENTIATE = {
    "derivative": DERIVATIVES,  # the place where tangents are pushed and cotangents pulled
    "explore.programs": {"jvp", "vjp", "linearize", "grad"},  # shows what JAX makes of each transform
    "jacobians.modes": {"jacfwd", "jacrev"},  # the drop-in hands JAX's own arguments to JAX's own function
    "program.flow": {"jvp"},  # asks JAX which results a rule moves, and computes none of them
    "steps": {"value_and_grad"},  # one step of training, as everyone writes it
}
"""Module → the transforms of JAX that it may call itself, and why."""

# ------------------------------------------------------------------------------------------------- reading the source


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(path_of(module).read_text(encoding="utf-8"))


def path_of(module: str) -> Path:
    """The file of ``program.flat``; of a package, its ``__init__.py``."""
    path = HOUSE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def name_of(path: Path) -> str:
    parts = path.relative_to(HOUSE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = sorted(map(name_of, HOUSE.rglob("*.py")))


def dotted(node: ast.AST) -> str:
    """``jax.lax.map`` as a string; empty for what is no chain of names."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{dotted(value)}.{name}"
    return ""


def absolute(node: ast.ImportFrom, module: str) -> str:
    """Where an import looks: relative ones from the package of ``module``."""
    if not node.level:
        return node.module or ""
    package = [*path_of(module).relative_to(HOUSE.parent).parent.parts]
    above = package[: len(package) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def imports(module: str) -> Iterator[tuple[str, str, int]]:
    """(whole dotted name, name that it has here, line) of every import, wherever in the file it is written."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, alias.asname or alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{absolute(node, module)}.{alias.name}", alias.asname or alias.name, node.lineno


def inside(module: str) -> dict[str, int]:
    """The modules of the house that one imports, each with a line that does."""
    found: dict[str, int] = {}
    for name, _, line in imports(module):
        parts = name.split(".")
        if parts[0] != "jaxchain" or name == VERSION:
            continue
        known = (".".join(parts[1:stop]) for stop in range(len(parts), 1, -1))
        found[next((name for name in known if name in MODULES), "__init__")] = line
    return found


def room(module: str) -> str:
    return module.split(".")[0]


def uses(module: str) -> Iterator[tuple[str, int]]:
    """(whole dotted name, line) of every name of JAX that a module reads or imports, aliases undone."""
    here = {alias: name for name, alias, _ in imports(module)}
    yield from ((name, line) for name, _, line in imports(module))
    for node in ast.walk(tree(module)):
        if isinstance(node, (ast.Name, ast.Attribute)) and (name := dotted(node)):
            first, *rest = name.split(".")
            yield ".".join([here.get(first, first), *rest]), node.lineno


def places(found: Iterator[tuple[str, int]] | list[tuple[str, int]]) -> str:
    return "\n".join(f"  {what}" for what in dict.fromkeys(f"{module}:{line}" for module, line in found))


# ---------------------------------------------------------------------------------------------------------- who knows whom


def test_every_file_has_a_room():
    assert {room(module) for module in MODULES} == set(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_from_rooms_above_it(module):
    own = ROOMS.index(room(module))
    below = {name: line for name, line in inside(module).items() if ROOMS.index(room(name)) > own}
    assert not below, f"{module} imports from below its own room, or from its own front door: {below}"


def test_independent_rooms_do_not_know_each_other():
    known = {frozenset([room(module), room(other)]) for module in MODULES for other in inside(module)}
    assert not known & INDEPENDENT


def test_no_files_import_each_other_in_a_circle():
    try:
        graphlib.TopologicalSorter({module: inside(module).keys() for module in MODULES}).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"A circle of files: {' ← '.join(error.args[1])}")


# ----------------------------------------------------------------------------------------------------------------- names


def public_names() -> list[tuple[str, str, str]]:
    """(module, name there, public name) of every line of the stub."""
    stub = ast.parse((HOUSE / "__init__.pyi").read_text(encoding="utf-8"))
    return [
        ((node.module or "__init__"), alias.name, alias.asname or alias.name)
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


def test_a_public_name_appears_once_in_the_stub():
    names = [name for *_, name in public_names()]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(("module", "there", "name"), public_names(), ids=lambda part: part)
def test_a_public_name_is_what_its_module_holds(module, there, name):
    if module == "__init__":  # a module handed out whole
        assert getattr(jaxchain, name) is import_module(f"jaxchain.{there}")
    else:
        assert getattr(jaxchain, name) is getattr(import_module(f"jaxchain.{module}"), there)


PACKAGES = sorted({*map(name_of, HOUSE.glob("*/__init__.py")), "__init__"})


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_named_like_a_public_name_of_its_package(package):
    """Importing the module would put it in the place of the function."""
    folder = path_of(package).parent
    files = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    if package == "__init__":
        names = {name for module, _, name in public_names() if module != "__init__"}
    else:
        names = set(getattr(import_module(f"jaxchain.{package}"), "__all__", ()))
    assert not files & names


# ------------------------------------------------------------------------------------------------------- done in one place


def transforms(module: str) -> set[str]:
    """The transforms of JAX that a module names, those imported by name too."""
    return {name.rpartition(".")[2] for name, _ in uses(module) if name.startswith("jax.")} & DERIVATIVES


@pytest.mark.parametrize("module", MODULES)
def test_only_one_file_pushes_tangents_and_pulls_cotangents(module):
    called = transforms(module)
    assert called <= DIFFERENTIATE.get(module, set()), f"{module}: use jaxchain.derivative instead of {called}"


def test_the_exceptions_are_still_needed():
    for module, allowed in DIFFERENTIATE.items():
        assert module == "derivative" or allowed == transforms(module)


def test_only_one_file_sends_a_basis_through_in_chunks():
    elsewhere = [
        (module, line)
        for module in MODULES
        if module != "derivative"
        for name, line in uses(module)
        if name == "jax.lax.map"
    ]
    assert not elsewhere, f"jax.lax.map outside derivative.py:\n{places(elsewhere)}"
    assert any(name == "jax.lax.map" for name, _ in uses("derivative"))


def params_of_equations(module: str) -> Iterator[tuple[str, int]]:
    """Where a parameter is read by its name: ``….params[…]``, ``….params.get(…)``, ``… in ….params``, ``p = ….params``.

    Taking all of them, whatever their names, is another matter.
    """
    parents = {child: node for node in ast.walk(tree(module)) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree(module)):
        if not (isinstance(node, ast.Attribute) and node.attr == "params"):
            continue
        above = parents[node]
        indexed = isinstance(above, ast.Subscript) and above.value is node
        asked = isinstance(above, ast.Attribute) and above.attr == "get"
        of_equation = dotted(node.value).endswith("eqn")
        kept = of_equation and isinstance(above, (ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.Compare))
        if indexed or asked or kept:
            yield module, node.lineno


def test_only_one_file_reads_parameters_of_equations():
    elsewhere = [place for module in MODULES if module != "program.primitives" for place in params_of_equations(module)]
    assert not elsewhere, f"Read in program/primitives.py what equations' parameters say:\n{places(elsewhere)}"
    assert any(params_of_equations("program.primitives"))


def of_jax(module: str, package: str) -> list[tuple[str, int]]:
    return [(module, line) for name, line in uses(module) if f"{name}.".startswith(f"{package}.")]


def test_only_one_file_imports_the_types_of_jaxprs():
    elsewhere = [
        place for module in MODULES if module != "program.primitives" for place in of_jax(module, "jax.extend")
    ]
    assert not elsewhere, f"jax.extend outside program/primitives.py:\n{places(elsewhere)}"
    assert of_jax("program.primitives", "jax.extend")


def decorators(function: ast.FunctionDef) -> Iterator[tuple[str, ast.expr]]:
    for decorator in function.decorator_list:
        call = decorator.func if isinstance(decorator, ast.Call) else decorator
        yield dotted(call).rpartition(".")[2], decorator


def test_what_is_remembered_is_bounded():
    """A cache on a module's function holds one value, or says how many; others are `Kept`, which has a bound and a lock."""
    boundless = [
        (module, function.lineno)
        for module in MODULES
        for function in tree(module).body
        if isinstance(function, ast.FunctionDef)
        for name, decorator in decorators(function)
        if (name == "cache" and (function.args.args or function.args.kwonlyargs))
        or (name == "lru_cache" and "maxsize" not in [k.arg for k in getattr(decorator, "keywords", [])])
    ]
    assert not boundless, f"Say how many values are remembered:\n{places(boundless)}"


LOADERS = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml", "dbm"}
"""What runs code that a file holds."""


def test_nothing_is_unpickled():
    loaded = [(module, line) for module in MODULES for name, _, line in imports(module) if {*name.split(".")} & LOADERS]
    allowed = [
        (module, keyword.lineno)
        for module in MODULES
        for keyword in ast.walk(tree(module))
        if isinstance(keyword, ast.keyword) and keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False"
    ]
    silent = [
        (module, call.lineno)
        for module in MODULES
        for call in ast.walk(tree(module))
        if isinstance(call, ast.Call)
        and dotted(call.func) in ("np.load", "numpy.load", "jnp.load")
        and "allow_pickle" not in [keyword.arg for keyword in call.keywords]
    ]
    assert not [*loaded, *allowed, *silent], (
        f"Files hold arrays and JSON alone:\n{places([*loaded, *allowed, *silent])}"
    )


RUNS_TEXT = {"lesson.cell"}
"""Modules that run text as code, their own: the lesson's cells."""


def test_no_text_is_run_as_code():
    found = [
        (module, call.lineno)
        for module in MODULES
        if module not in RUNS_TEXT
        for call in ast.walk(tree(module))
        if isinstance(call, ast.Call) and dotted(call.func) in ("eval", "exec", "compile", "__import__", "os.system")
    ]
    assert not found, f"Text of others is never code:\n{places(found)}"


def test_nothing_imports_the_private_parts_of_jax():
    found = [place for module in MODULES for place in of_jax(module, "jax._src")]
    assert not found, f"jax._src is not for us:\n{places(found)}"
