"""The command: what it prints for people and programs, and what it says when something is wrong."""

import errno
import json
import os
import pty
import select
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxchain as jc
import jaxchain.cli as cli
from jaxchain.discovery.group import Granularity

SCRIPT = Path(sysconfig.get_path("scripts")) / "jaxchain"
COMMANDS = ("demo", "show", "trace", "transforms", "plan", "modes", "report", "compare", "diagnose", "learn")

MODEL = """
import jax
import jax.numpy as jnp
import jaxchain as jc

def layer(w, x):
    return jnp.tanh(w @ x)

layer.example_args = (jnp.ones((3, 4)), jnp.arange(4.0))

def noisy(key, x):
    return x * jax.random.normal(key, x.shape)

noisy.example_args = lambda: (jax.random.key(7), jnp.ones(3))

def baydin(x1, x2):
    return jnp.log(x1) + x1 * x2 - jnp.sin(x2)

def many(x):
    for _ in range(40):
        x = jnp.sin(x) * 2
    return x

def scaled(x, by=2.0):
    return jnp.sin(x) * by

def by_keyword(x, *, by):
    return x * by

def nothing():
    return 1.0

def refuses(x):
    print("traced")
    raise ValueError("no way, José")

def branches(x):
    return x if x.sum() > 0 else -x

def misses(x):
    return {}["key"]

def leaves(x):
    raise SystemExit(0)

def stays(x):
    return jnp.ones(2)

def words(x):
    return "words"

class Net:
    def apply(self, x):
        return jnp.cos(x)

@jax.jit
def jitted(x):
    return jnp.sin(x)

jitted.example_args = lambda: (jnp.ones(3),)

shapes = (jax.ShapeDtypeStruct((3, 4), "float32"), jax.ShapeDtypeStruct((4,), "float32"))
net_object = Net()
net = jc.nets.mlp([5, 4, 3])
hostile = jc.Chain([jc.Stage("[red]<b>&%s{0}", jnp.sin), jc.Stage("[/red] 'x\\"; \\\\n", jnp.cos)])
three = 3
vector = (jnp.ones(3),)
zeros = (jnp.zeros(3),)
listed = [jnp.ones(3)]

def make_vector():
    return vector

def make_nothing():
    raise RuntimeError("out of vectors")
"""


def at(text):
    """The line of the model that says so."""
    return next(number for number, line in enumerate(MODEL.splitlines(), start=1) if text in line)


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model in it, and the same in a folder whose name has a space."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "model.py").write_text(MODEL)
    (folder / "with space").mkdir()
    (folder / "with space" / "own.py").write_text(f"from beside import HELPED\n{MODEL}")
    (folder / "with space" / "beside.py").write_text("HELPED = True")
    (folder / "hides").mkdir()
    (folder / "hides" / "json.py").write_text("import jax.numpy as jnp\ndef f(x): return jnp.sin(x)")
    (folder / "with space" / "notes").write_text("no code")
    (folder / "broken.py").write_text("x = 1\nraise RuntimeError('half a module')")
    (folder / "typo.py").write_text("def f(x:\n    return x")
    (folder / "raises.py").write_text("raise SyntaxError('by hand')")
    (folder / "leaves.py").write_text("import sys\nsys.exit(3)")
    (folder / "needs.py").write_text("import not_there_at_all")
    (folder / "loud.py").write_text("print('importing')\n" + MODEL)
    (folder / "slow.py").write_text("import time\nprint('started', flush=True)\ntime.sleep(60)")
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch, capsys):
    """``run("show", "model:f")``: the command in this process; files that it writes go to ``tmp_path``."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(folder)
    before = set(sys.modules)

    def run(*argv):
        code = cli.main([str(word) for word in argv])
        return Done(code, *capsys.readouterr())

    yield run
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    jc.cli.targets._from_file.cache_clear()


def start(*argv, cwd, **options):
    """The installed command as a process of its own."""
    environment = {**os.environ, "COLUMNS": "100", **options.pop("env", {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([SCRIPT, *map(str, argv)], cwd=cwd, env=environment, **pipes)


def installed(*argv, cwd, **options):
    process = start(*argv, cwd=cwd, **options)
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out.decode(), (err or b"").decode())


# ----------------------------------------------------------------------------------------------------- the answers


def test_the_demo_trains_explains_and_writes_the_networks_page(folder, tmp_path):
    page = tmp_path / "digits.html"
    done = installed("demo", "--steps", 60, "-o", page, cwd=folder)
    assert done.code == 0, done.err
    assert done.err == ""
    assert "After 60 steps the network reads" in done.out
    for words in (
        "Chain of 5 stages",
        "Jacobian of 10 × 64 by the chain input, argument 1: reverse mode",
        "in every mode",
        f"Wrote {page}",
        "What to look at:\n1. ",
    ):
        assert words in done.out
    loss = page.with_name("digits_loss.html")
    assert f"3. {loss}: the loss is one number" in done.out
    assert "cross_entropy" in loss.read_text(encoding="utf-8")
    assert "<html" in page.read_text(encoding="utf-8")[:200]


def test_the_demo_is_one_json_document_for_programs(run, tmp_path):
    done = run("demo", "--steps", 60, "--seed", 3, "--json", "-o", tmp_path / "digits.html")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["accuracy"] > 0.8
    assert [stage["name"] for stage in found["stages"]] == ["dense_0", "relu_0", "dense_1", "relu_1", "dense_2"]
    assert {row["mode"] for row in found["modes"]["rows"]} == {"forward", "reverse", "mixed", "auto"}
    assert Path(found["report"]).is_file()


def test_the_demo_without_scikit_learn_says_how_to_install_it(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    done = run("demo", "--steps", 1)
    assert (done.code, done.out) == (2, "")
    assert 'pip install "jaxchain[experiments]"' in done.err


def test_show_prints_the_chain_that_discover_finds(run):
    args = jnp.ones((3, 4)), jnp.arange(4.0)
    done = run("show", "model:layer")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{jc.discover(sys.modules['model'].layer, *args)}\n"
    names = [stage["name"] for stage in json.loads(run("show", "model:layer", "--json").out)["stages"]]
    assert names == list(jc.discover(sys.modules["model"].layer, *args).names)


def test_show_cuts_as_finely_as_it_is_told(run):
    counts = [
        len(json.loads(run("show", "model:net", "--shape", 5, "--granularity", g, "--json").out)["stages"])
        for g in ("finest", "default")
    ]
    assert counts == [5, 3]
    assert set(get_args(cli.Cuts)) == set(get_args(Granularity))


def test_trace_ends_with_the_value_and_begins_with_the_gradient(run):
    rows = json.loads(run("trace", "model:scaled", "--args", "model:vector", "--json", "--full").out)["rows"]
    np.testing.assert_allclose(rows[-1]["primal"], 2 * np.sin(np.ones(3)), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows[0]["tangent"]), 1, rtol=1e-6)
    np.testing.assert_allclose(rows[-1]["tangent"], 2 * np.cos(np.ones(3)) * rows[0]["tangent"], rtol=1e-6)
    np.testing.assert_allclose(rows[0]["cotangent"], 2 * np.cos(np.ones(3)), rtol=1e-6)
    assert "sin" in run("trace", "model:scaled", "--args", "model:vector").out


def test_trace_follows_the_argument_that_argnum_names(run):
    rows = json.loads(run("trace", "model:layer", "--argnum", 0, "--json", "--full").out)["rows"]
    w, x = jnp.ones((3, 4)), jnp.arange(4.0)
    assert rows[1]["tangent"] == [0] * 4
    _, tangent = jax.jvp(lambda w: jnp.tanh(w @ x), (w,), (jnp.array(rows[0]["tangent"]),))
    np.testing.assert_allclose(rows[-1]["tangent"], tangent, rtol=1e-5)


def test_unfolding_a_trace_shows_more_rows(run):
    call = ("trace", "model:net", "--shape", 5)
    folded, one, whole = (run(*call, *more).out for more in ((), ("--unfold", "dense_0"), ("--all",)))
    assert len(folded.splitlines()) < len(one.splitlines()) < len(whole.splitlines())


def test_a_trace_of_a_random_key_is_json(run):
    rows = json.loads(run("trace", "model:noisy", "--json", "--full").out)["rows"]
    assert rows[0]["primal"] == jax.random.key_data(jax.random.key(7)).tolist()
    assert rows[0]["tangent"] is None
    np.testing.assert_allclose(rows[-1]["primal"], jax.random.normal(jax.random.key(7), (3,)), rtol=1e-6)


def test_a_trace_for_programs_tells_arrays_by_their_facts_and_all_entries_on_demand(run):
    call = ("trace", "model:layer", "--json")
    rows = json.loads(run(*call).out)["rows"]
    entries = json.loads(run(*call, "--full").out)["rows"]
    assert [row["name"] for row in rows] == [row["name"] for row in entries]
    for kind in ("primal", "tangent", "cotangent"):
        for told, row in zip(rows, entries, strict=True):
            whole = np.array(row[kind], np.float32)
            assert (told[kind]["shape"], told[kind]["dtype"]) == (list(whole.shape), "float32")
            wanted = [np.linalg.norm(whole), whole.min(), whole.max(), whole.mean()]
            np.testing.assert_allclose([told[kind][k] for k in ("norm", "min", "max", "mean")], wanted, rtol=1e-5)
    refused = run("trace", "model:layer", "--full")
    assert (refused.code, refused.out) == (2, "")
    assert "--full would change nothing" in refused.err


def test_a_number_is_told_as_a_number(run):
    row = json.loads(run("trace", "model:many", "--shape", "", "--json").out)["rows"][0]
    assert [type(row[kind]) for kind in ("primal", "tangent", "cotangent")] == [float] * 3


def test_all_is_every_row_and_a_shell_is_told_its_own_options(run):
    call = ("trace", "model:many", "--shape", "")
    first, whole = run(*call).out, run(*call, "--all").out
    names = [row["formula"] for row in json.loads(run(*call, "--json").out)["rows"]]
    assert len(names) > 60
    assert [line.split("  ")[0] for line in whole.splitlines()[2:]] == names
    assert "rows are left out here; --all shows every one, --json gives them to programs." in " ".join(first.split())
    folded = " ".join(run("trace", "model:net", "--shape", 5).out.split())
    assert "+ holds more rows: --all shows them all, --unfold NAME those of one name." in folded
    for text in (first, whole, folded):
        assert ".rows" not in text
        assert ".unfold" not in text


def test_transforms_prints_all_one_program_or_one_stage(run):
    done = run("transforms", "model:layer", "--json")
    rows = {row["name"]: row for row in json.loads(done.out)["rows"]}
    assert tuple(rows) == get_args(cli.Program)
    assert rows["jvp"]["flops"] >= rows["fun"]["flops"]
    assert "tanh" in rows["fun"]["program"]
    everything, one = run("transforms", "model:layer").out, run("transforms", "model:layer", "--program", "jvp").out
    stage = run("transforms", "model:net", "--shape", 5, "--stage", "relu_0").out
    assert "linearize" in everything
    assert "tanh" in one
    assert "relu_0" in stage
    assert "dense_1" not in stage


def test_plan_says_what_the_library_plans(run):
    found = json.loads(run("plan", "model:layer", "--json").out)
    want = jc.plan(sys.modules["model"].layer, (jnp.ones((3, 4)), jnp.arange(4.0)))
    assert (found["cost"], found["forward_cost"], found["reverse_cost"]) == (
        want.cost,
        want.forward_cost,
        want.reverse_cost,
    )
    assert run("plan", "model:layer").out == f"{want}\n"
    limited = json.loads(run("plan", "model:net", "--shape", 5, "--memory-limit", 10**6, "--json").out)
    assert limited["names"][0] == "input"


def test_modes_compares_every_mode(run):
    done = run("modes", "model:scaled", "--shape", 3, "--repeats", 1, "--json")
    assert [row["mode"] for row in json.loads(done.out)["rows"]] == ["forward", "reverse", "mixed", "auto"]
    assert "Jacobian by argument 0, in every mode" in run("modes", "model:scaled", "--shape", 3, "--repeats", 1).out


def test_diagnose_says_what_is_wrong_and_that_nothing_is(run):
    done = run("diagnose", "model:baydin", "--at", -2, "--at", 5, "--argnum", 0)
    assert done.code == 0
    assert done.out.startswith("Numbers are lost: 1 of 1 entries that add@model.py")
    found = json.loads(run("diagnose", "model:net", "--shape", 5, "--json").out)
    assert (found["healthy"], found["findings"]) == (True, [])


def test_report_writes_a_page_opens_it_and_replaces_only_its_own(run, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    page = tmp_path / "page.html"
    call = ("report", "model:scaled", "--shape", 3, "-o", page, "--title", "Two <sines>")
    assert json.loads(run(*call, "--json", "--open").out) == {"report": str(page)}
    assert opened == [page.as_uri()]
    text = page.read_text(encoding="utf-8")
    assert "Two &lt;sines&gt;" in text
    assert "Two <sines>" not in text
    assert run(*call).code == 0
    page.write_text("precious")
    refused = run(*call)
    assert refused.code == 2
    assert f"{page} exists, and jaxchain did not write it." in refused.err
    assert "replace it with --force." in refused.err
    assert page.read_text() == "precious"
    assert run(*call, "--force").code == 0
    assert len(opened) == 1


def test_compare_puts_two_targets_or_two_arguments_on_one_page(run, tmp_path):
    page = tmp_path / "page.html"
    done = run("compare", "model:scaled", "model:jitted", "--shape", 3, "-o", page)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("scaled → jitted")
    assert f"Wrote {page}" in done.out
    assert "scaled and jitted" in page.read_text(encoding="utf-8")
    call = (
        "compare",
        "model:scaled",
        "--args",
        "model:vector",
        "--args-b",
        "model:zeros",
        "--names",
        "at one",
        "at zero",
    )
    found = json.loads(run(*call, "-o", page, "--json").out)
    assert (found["names"], found["comparison"]) == (["at one", "at zero"], str(page))
    np.testing.assert_allclose(
        [found["rows"][1][side]["jacobian"] for side in "ab"], np.sqrt(12) * np.cos([1, 0]), rtol=1e-6
    )
    alone = run("compare", "model:scaled", "--args", "model:vector", "-o", page)
    assert alone.code == 2
    assert "There is nothing to compare" in alone.err


def test_learn_writes_the_lesson_where_it_is_told_and_opens_it(run, tmp_path, monkeypatch):
    opened, asked = [], []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("jaxchain.lesson.write_lesson", lambda path, **options: asked.append((path, options)) or path)
    page = tmp_path / "learn.html"
    assert json.loads(run("learn", "-o", page, "--json", "--open").out) == {"lesson": str(page)}
    assert opened == [page.as_uri()]
    assert asked == [(page, {"force": False, "progress": False})]
    assert f"Wrote {page}" in run("learn", "-o", page, "--force").out
    assert asked[-1][1]["force"]


def test_a_lesson_replaces_no_file_of_others_and_says_so_before_any_work(run, tmp_path):
    page = tmp_path / "mine.html"
    page.write_text("precious")
    refused = run("learn", "-o", page)
    assert refused.code == 2
    assert "replace it with --force." in refused.err
    missing = run("learn", "-o", tmp_path / "no" / "page.html")
    assert f"The folder {tmp_path / 'no'} for the lesson does not exist." in missing.err


def test_a_missing_folder_for_the_page_is_named(run, tmp_path):
    done = run("report", "model:scaled", "--shape", 3, "-o", tmp_path / "no" / "page.html")
    assert (done.code, done.out) == (2, "")
    assert f"The folder {tmp_path / 'no'} for the report does not exist." in done.err


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.ENAMETOOLONG])
def test_a_page_that_the_system_does_not_write_is_named(run, tmp_path, monkeypatch, code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code), "hidden.part")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    page = tmp_path / "page.html"
    done = run("report", "model:scaled", "--shape", 3, "-o", page)
    assert (done.code, done.out) == (2, "")
    assert f"{page}: {os.strerror(code)}" in done.err
    assert "choose another path" in done.err
    assert "Errno" not in done.err
    assert "hidden" not in done.err


def test_a_name_that_is_too_long_for_a_file_is_refused(run, tmp_path):
    done = run("report", "model:scaled", "--shape", 3, "-o", tmp_path / ("x" * 300))
    assert (done.code, done.out) == (2, "")
    assert "cannot be opened: File name too long. Choose another path." in done.err


# ------------------------------------------------------------------------------------------- targets and arguments


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("model:layer", ()),
        ("model.py:layer", ()),
        ("with space/own.py:layer", ()),
        ("with space/own.py:scaled", ("--args", "with space/own.py:make_vector")),
        ("model:scaled", ("--args", "model:vector")),
        ("model:scaled", ("--shape", "")),
        ("model:scaled", ("--shape", "scalar", "--shape", "2,3")),
        ("model:net_object.apply", ("--shape", "3,4", "--dtype", "bfloat16")),
        ("model:jitted", ()),
        ("model:layer", ("--args", "model:shapes")),
        ("model:net", ("--shape", "5")),
        ("model:hostile", ("--shape", "2", "--dtype", "complex64")),
        ("jax.numpy:sin", ("--shape", "7")),
        ("hides/json.py:f", ("--shape", "7")),
    ],
)
def test_targets_and_arguments_are_found(run, target, options):
    done = run("show", target, *options, "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["stages"]


def test_at_gives_scalar_arguments_in_order(run):
    rows = json.loads(run("trace", "model:baydin", "--at", 2, "--at", 5, "--json").out)["rows"]
    assert (rows[0]["primal"], rows[1]["primal"]) == (2.0, 5.0)
    np.testing.assert_allclose(rows[-1]["primal"], np.log(2) + 10 - np.sin(5), rtol=1e-6)
    assert json.loads(run("trace", "model:scaled", "--at=-0.5", "--json").out)["rows"][0]["primal"] == -0.5


def test_report_and_transforms_cut_as_finely_as_they_are_told(run, tmp_path):
    page = tmp_path / "page.html"
    for granularity, count in (("finest", 80), ("module", 40)):
        said = run("show", "model:many", "--shape", 3, "--granularity", granularity).out
        assert f"Chain of {count} stages" in said
        assert run("transforms", "model:many", "--shape", 3, "--granularity", granularity).code == 0
    assert run("report", "model:scaled", "--at", 2, "--granularity", "finest", "-o", page).code == 0
    assert page.exists()


def test_random_arguments_follow_shape_dtype_and_seed(run):
    def primal(*options):
        rows = json.loads(run("trace", "jax.numpy:negative", *options, "--json", "--full").out)["rows"]
        return np.array(rows[0]["primal"])

    assert primal("--shape", "2,3").shape == (2, 3)
    assert primal("--shape", "").shape == ()
    np.testing.assert_array_equal(primal("--shape", 3), primal("--shape", 3, "--seed", 0))
    assert (primal("--shape", 3) != primal("--shape", 3, "--seed", 1)).all()


def test_float64_arguments_are_float64(folder):
    done = installed("show", "model:scaled", "--shape", 3, "--dtype", "float64", "--json", cwd=folder)
    assert json.loads(done.out)["stages"][0]["in_shape"] == "f64[3]"


def test_a_file_is_run_once_for_target_and_arguments(run):
    done = run("show", "loud.py:layer", "--args", "loud.py:layer.example_args", "--json")
    assert done.code == 0
    assert done.err == "importing\n"
    assert json.loads(done.out)


def test_hostile_names_are_shown_as_they_are(run):
    done = run("show", "model:hostile", "--shape", 2)
    assert "[red]<b>&%s{0}" in done.out
    assert "[/red] 'x\"; \\n" in done.out


# ------------------------------------------------------------------------------------------------------- bad input

WRONG = [
    (("model",), "'model' names no function in a module: write module:function or path/file.py:function."),
    (("",), "'' names no function"),
    ((":f",), "':f' names no function"),
    (("model:",), "'model:' names no function"),
    (("modell:layer",), "There is no module 'modell' in the current directory or among the installed packages."),
    (("model.layer:f",), "There is no module 'model.layer'"),
    (("no/file.py:f",), "There is no Python file no/file.py. A path is relative to the current directory, "),
    (("with space/notes:f",), "There is no Python file with space/notes."),
    (("model:layr",), "model has no 'layr'. Nearest: layer"),
    (("model:net_object.aply",), "model:net_object has no 'aply'. Nearest: apply."),
    (("model:layer.",), "model:layer has no ''."),
    (("model:three",), "model:three is 3, of type int, which cannot be called."),
    (("model:Net",), "model:Net is a class. TARGET is a function or a chain: name an instance of it, or a method"),
    (("broken:f",), "broken fails when it is imported: RuntimeError: half a module (broken.py, line 2, in <module>)"),
    (("typo.py:f",), "typo.py fails when it is imported: SyntaxError: '(' was never closed (typo.py, line 1)\n"),
    (("raises.py:f",), "raises.py fails when it is imported: SyntaxError: by hand (raises.py, line 1, in <module>)"),
    (("leaves:f",), "leaves fails when it is imported: SystemExit: 3 (leaves.py, line 2, in <module>)"),
    (("needs:f",), "needs fails when it is imported: ModuleNotFoundError: No module named 'not_there_at_all'"),
    (("model:scaled",), "model:scaled takes 1 argument, x (and may take by), but none were given. Give random ones"),
    (("model:layer", "--shape", "3"), "takes 2 arguments, w and x, but 1 was given (missing a required argument: 'x')"),
    (("model:scaled", *["--shape", "3"] * 3), "but 3 were given (too many positional arguments)"),
    (("model:by_keyword", "--shape", "3"), "takes 2 arguments, x and by by keyword alone (bind it first), but 1 was"),
    (("model:nothing",), "model:nothing takes no arguments, so there is nothing to differentiate with respect to."),
    (("model:net",), "model:net takes the state alone, or its parameters and the state, but none were given."),
    (("model:net", "--shape", "6"), "Stage 'dense_0' cannot be applied to the state that it was given, float32[6]."),
    (("model:net", *["--shape", "5"] * 2), "this chain takes two arguments: chain(params, x)"),
    (("model:scaled", "--args", "model:no"), "model has no 'no'."),
    (("model:scaled", "--args", "vector"), "'vector' names no value in a module: write module:example_args"),
    (("model:scaled", "--args", "model:listed"), "of type list, but arguments are a tuple, one entry for each"),
    (("model:scaled", "--args", "model:three"), "model:three gives 3, of type int, but arguments are a tuple"),
    (("model:baydin", "--at", "2"), "takes 2 arguments, x1 and x2, but 1 was given"),
    (("model:baydin", "--at", "2", "--shape", ""), "--shape and --at exclude each other"),
    (("model:scaled", "--at", "2", "--seed", "1"), "--seed would change nothing"),
    (("model:scaled", "--at", "2", "--dtype", "int32"), "--dtype is 'int32', but numbers given with --at have"),
    (("model:scaled", "--shape", "3x4"), "--shape is '3x4', but a shape is sizes with commas between them: 784 or 3,4"),
    (("model:scaled", "--shape=-1"), "--shape is '-1', but a shape is"),
    (("model:scaled", "--shape", "9" * 30), "which is more numbers than memory holds."),
    (("model:words", "--shape", "3"), "A function that has a derivative returns arrays, but this one does not"),
    (("model:scaled", "--shape", "3,"), "--shape is '3,', but a shape is"),
    (("model:scaled", "--shape", "3", "--dtype", "int32"), "--dtype is 'int32', but random normal numbers have"),
    (("model:scaled", "--shape", "3", "--dtype", "float31"), "--dtype is 'float31', but random normal numbers have"),
    (("model:scaled", "--shape", "3", "--argnum", "4"), "--argnum 4 names no argument: 1 were given."),
]


@pytest.mark.parametrize(("words", "sentence"), WRONG, ids=lambda value: value if isinstance(value, str) else None)
def test_what_is_wrong_on_the_command_line_is_a_sentence_and_exit_code_2(run, words, sentence):
    done = run("show", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("jaxchain: ")
    assert sentence in done.err
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("show", "model:scaled", "--shape", "3", "--args", "x"),
            "--args and --shape exclude each other: leave out all",
        ),
        (
            ("show", "model:scaled", "--args", "model:vector", "--dtype", "float32", "--seed", "0"),
            "--dtype and --seed would change nothing: they are of random arguments. Ask for some with --shape, or leave",
        ),
        (("show", "model:layer", "--seed", "1"), "--seed would change nothing: it is of random arguments."),
        (("trace", "model:layer", "--all", "--unfold", "x"), "--unfold and --all exclude each other"),
        (("transforms", "model:layer", "--program", "jvp", "--stage", "x"), "--program and --stage exclude each other"),
        (("trace", "model:layer", "--argnum", "4"), "--argnum 4 names no argument: 2 were given."),
        (("trace", "model:net", "--shape", "5", "--unfold", "nowhere"), "nowhere"),
        (
            ("transforms", "model:net", "--shape", "5", "--stage", "relu_7"),
            "No stage is named 'relu_7'. Nearest: relu_0",
        ),
        (("plan", "model:net", "--shape", "5", "--memory-limit", "1"), "--memory-limit 1 bytes cannot be met"),
        (
            ("modes", "model:scaled", "--shape", "3", "--repeats", "0"),
            "repeats is the number of timed calls a mode, an integer of at least 1, but 0 was given.",
        ),
        (("demo", "--steps", "-1"), "steps"),
    ],
)
def test_wrong_options_are_the_librarys_sentence_and_exit_code_2(run, words, sentence):
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("jaxchain: ")
    assert sentence in done.err


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("shw", "model:layer"),
        ("show",),
        ("show", "model:layer", "--granularity", "coarse"),
        ("show", "model:layer", "--seed", "x"),
        ("show", "model:layer", "--no-such-option"),
        ("transforms", "model:layer", "--program", "backprop"),
    ],
)
def test_a_command_line_that_does_not_parse_is_exit_code_2(run, words):
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert "--help" in done.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("model:refuses",),
            f"ValueError: no way, José (model.py, line {at('raise ValueError')}, in refuses) (--traceback shows all.)",
        ),
        (("model:misses",), f"KeyError: key (model.py, line {at('return {}')}, in misses)"),
        (("model:leaves",), f"SystemExit: 0 (model.py, line {at('SystemExit(0)')}, in leaves)"),
    ],
)
def test_a_function_that_fails_is_named_with_its_own_last_line_and_exit_code_1(run, words, sentence):
    done = run("show", *words, "--shape", "3", "--json")
    assert (done.code, done.out) == (1, "")
    assert sentence in done.err
    assert "Traceback" not in done.err
    assert "site-packages" not in done.err


def test_a_function_that_cannot_be_traced_is_refused_with_its_line(run):
    done = run("show", "model:branches", "--shape", "3", "--json")
    assert (done.code, done.out) == (2, "")
    assert "The function cannot be traced" in done.err
    assert "model.py:" in done.err


def test_arguments_that_fail_to_be_made_are_the_users_failure(run):
    done = run("show", "model:scaled", "--args", "model:make_nothing")
    assert done.code == 1
    assert f"RuntimeError: out of vectors (model.py, line {at('out of vectors')}, in make_nothing)" in done.err


def test_a_traceback_is_shown_on_demand(run):
    done = run("show", "model:refuses", "--shape", "3", "--traceback")
    assert done.code == 1
    assert "Traceback (most recent call last):" in done.err
    assert done.err.rstrip().endswith(
        f"jaxchain: ValueError: no way, José (model.py, line {at('raise ValueError')}, in refuses)"
    )


def test_warnings_are_sentences_on_standard_error(folder):
    done = installed("show", "model:stays", "--shape", "3", cwd=folder)
    assert done.code == 0
    assert done.err.startswith("jaxchain: warning: The result does not depend on the chain input")
    assert done.err.count("\n") == 1


# ----------------------------------------------------------------------------------- the process and its terminal


def test_the_version_is_the_librarys(folder):
    done = subprocess.run(
        [sys.executable, "-m", "jaxchain", "--version"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"jaxchain {jc.__version__}\n"


def test_help_names_the_commands_and_needs_no_jax(folder):
    script = (
        "import sys; from jaxchain.cli import main; code = main(['--help']); sys.exit(code or 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for name in (*COMMANDS, "--version"):
        assert name in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(run, name):
    done = run(name, "--help")
    assert done.code == 0
    own = "--force" if name == "learn" else "--seed"  # a lesson is the same for every reader
    for option in ("--json", "--quiet", "--traceback", own):
        assert option in done.out


@pytest.mark.parametrize("words", [("show", "nowhere:f"), ("show", "model:refuses", "--shape", "3"), ("show",)])
def test_the_process_exits_with_the_code_of_the_outcome(folder, words):
    done = installed(*words, cwd=folder)
    assert done.code == (1 if "model:refuses" in words else 2)
    assert done.out == ""
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", ["show", "plan", "trace"])
def test_tables_fit_the_terminal(folder, command):
    done = installed(command, "model:net", "--shape", "5", cwd=folder, env={"COLUMNS": "60"})
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= 60


def test_a_terminal_without_unicode_gets_an_answer(folder):
    done = installed("plan", "model:net", "--shape", "5", cwd=folder, env={"PYTHONIOENCODING": "ascii"})
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Jacobian of 3 ? 5")


@pytest.mark.parametrize("words", [("show", "model:net", "--shape", "5"), ("--help",)])
def test_a_reader_that_has_gone_is_no_failure(folder, words):
    reading, writing = os.pipe()
    os.close(reading)
    process = start(*words, cwd=folder, stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (141, b"")


@pytest.fixture
def interrupts_heard():
    """Where a shell's background job runs the tests, interrupts are ignored, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts_heard")
def test_an_interrupt_ends_quietly(folder):
    process = start("show", "slow:f", cwd=folder)
    try:
        begun, _, _ = select.select([process.stderr], [], [], 60)
        assert begun, "the command has not begun after a minute"
        assert process.stderr.readline() == b"started\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (130, b"", b"")
    finally:
        process.kill()  # does nothing where it has ended
        process.communicate()


def terminal_read(main):
    """All that was written to a terminal, which the other side has closed."""
    seen = b""
    try:
        while piece := os.read(main, 4096):
            seen += piece
    except OSError:  # how Linux says that a terminal is closed
        pass
    os.close(main)
    return seen


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
@pytest.mark.parametrize("words", [("--help",), ("show", "--help"), ("shwo",)])
def test_help_and_complaints_have_colours_unless_told_otherwise(folder, words, env, coloured):
    main, terminal = pty.openpty()
    environment = {"TERM": "xterm-256color", "NO_COLOR": "", **env}
    process = start(*words, cwd=folder, env=environment, stdout=terminal, stderr=terminal, stdin=terminal)
    os.close(terminal)
    seen = terminal_read(main)
    process.wait(timeout=60)
    assert b"show" in seen
    assert (b"\x1b[" in seen) == coloured


@pytest.mark.parametrize(
    ("options", "env", "shown", "coloured"),
    [((), {}, True, True), ((), {"NO_COLOR": "1"}, True, False), (("--quiet",), {}, False, False)],
)
def test_a_terminal_sees_what_is_under_way_unless_told_otherwise(folder, options, env, shown, coloured):
    main, terminal = pty.openpty()
    call = ("modes", "model:scaled", "--shape", "3", "--json", *options)
    environment = {"TERM": "xterm-256color", "NO_COLOR": "", **env}
    with start(*call, cwd=folder, env=environment, stderr=terminal, stdin=terminal) as process:
        os.close(terminal)
        out = process.stdout.read()
    assert process.returncode == 0
    seen = terminal_read(main)
    assert json.loads(out)
    assert (b"Compiling and running every mode" in seen) == shown
    assert (b"\x1b[32m" in seen) == coloured
