"""Names and files of others: shown as text wherever they are shown, never obeyed, never a path, never code."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest

import jaxchain as jc

NAMES = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\x1b[2J\x1b]0;title\x07red\x1b[31m",
    "two\nlines\r\ttab",
    "[red]rich[/red] [link=file:///]",
    "\u202eright to left",
    "../../outside",
    "{{ 7 * 7 }}${x}%s",
]

X = jnp.ones(3)
CHAIN = jc.Chain([jc.Stage(name, jnp.tanh) for name in NAMES])
LOST = jc.Chain([jc.Stage(name, jnp.tanh) for name in NAMES[1:]] + [jc.Stage(NAMES[0], lambda x: x / 0)])


def compared():
    return jc.compare_modes(CHAIN, X, repeats=1, time_limit=30)


RESULTS = {
    "chain": lambda: CHAIN,
    "forward sweep": lambda: jc.forward_sweep(CHAIN, (X,), X),
    "reverse sweep": lambda: jc.reverse_sweep(CHAIN, (X,), X),
    "local Jacobians": lambda: jc.local_jacobians(CHAIN, (X,)),
    "prefix Jacobians": lambda: jc.prefix_jacobians(CHAIN, (X,)),
    "one local Jacobian": lambda: jc.local_jacobians(CHAIN, (X,))[0],
    "plan": lambda: jc.plan(CHAIN, (X,)),
    "modes": compared,
    "trace": lambda: jc.trace(CHAIN, X),
    "transforms": lambda: jc.transforms(CHAIN, X),
    "spectrum": lambda: jc.spectrum(CHAIN, (X,)),
    "gradient flow": lambda: jc.gradient_flow(CHAIN, (X,)),
    "diagnosis": lambda: jc.diagnose(LOST, (X,)),
    "what is lost": lambda: jc.locate_nonfinite(LOST, (X,)),
    "curvature": lambda: jc.curvature(jc.Chain([*CHAIN, jc.Stage("sum", jnp.sum)]), X),
    "weight sites": lambda: jc.weight_sites(
        lambda w: jnp.sum(w["<script>\x1b[2J"] @ w["<script>\x1b[2J"]), {"<script>\x1b[2J": jnp.eye(2)}
    ),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_what_is_shown_is_text(kind):
    found = RESULTS[kind]()
    for text in (str(found), repr(found)):
        assert all(character.isprintable() or character == "\n" for character in text), kind
        assert "two\nlines" not in text
    if hasattr(found, "_repr_html_"):
        html = found._repr_html_()
        assert "<script>alert" not in html
        assert "<img src=x" not in html
        assert "\x1b" not in html
        assert "49" not in html.partition("{{ 7 * 7 }}")[0][-10:]


def test_a_picture_draws_names_and_obeys_none():
    figure = jc.plot.chain(
        jc.local_jacobians(jc.Chain([jc.Stage(r"$\frac{", jnp.sin), jc.Stage("a_$b$", jnp.cos)]), (X,))
    )
    figure = getattr(figure, "figure", figure)
    figure.canvas.draw()
    plt.close("all")


def test_names_are_never_paths(tmp_path, monkeypatch):
    folder = tmp_path / "inner" / "work"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    up = jc.Chain([jc.Stage("../../outside", jnp.sin), jc.Stage("/tmp/jaxchain_outside", jnp.cos)])
    jc.report(up, X, path="page.html", progress=False)
    lens = jc.lens.fit(up, [(jnp.ones((6, 2)),)], skip_first=1, checkpoint_dir="kept", progress=False)
    lens.save("lens.npz")
    data = (jnp.ones((2, 3)), jnp.zeros(2))

    def loss(params, batch):
        return jnp.mean((batch[0] @ params["../up"] - batch[1]) ** 2)

    flow = jc.flow(path="flow.jsonl")
    jc.train.fit(loss, {"../up": jnp.ones(3)}, data, optax.sgd(0.1), steps=1, observe=flow, progress=False)
    jax.tree.map(np.testing.assert_array_equal, jc.lens.load("lens.npz").jacobians, lens.jacobians)
    written = {path.relative_to(tmp_path).parts[:3] for path in tmp_path.rglob("*") if path.is_file()}
    assert {parts[:2] for parts in written} == {("inner", "work")}
    assert {parts[2] for parts in written} <= {"page.html", "lens.npz", "flow.jsonl", "kept"}


def test_a_lens_is_arrays_alone(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    bomb = np.empty(1, object)
    bomb[0] = Bomb()
    for name in ("told", "array mean sin"):
        np.savez(tmp_path / "bomb.npz", allow_pickle=True, **{name: bomb})
        with pytest.raises(ValueError, match=r"bomb\.npz"):
            jc.lens.load(tmp_path / "bomb.npz")
    assert not (tmp_path / "exploded").exists()


def test_the_command_imports_its_target_and_no_file_beside_it(tmp_path):
    """Of a library that it loads later, a file of that name in the same folder is not taken for one."""
    for name in ("rich", "jinja2", "markupsafe", "scipy", "optax", "beside"):
        (tmp_path / f"{name}.py").write_text(
            f"from pathlib import Path\nPath({str(tmp_path / f'{name}.ran')!r}).touch()"
        )
    (tmp_path / "model.py").write_text("import beside\nimport jax.numpy as jnp\ndef f(x): return jnp.sin(x)")
    command = [sys.executable, "-P", "-c", "import sys; from jaxchain.cli import main; sys.exit(main(sys.argv[1:]))"]
    done = subprocess.run(
        [*command, "diagnose", "model:f", "--at", "2", "--json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert [path.name for path in tmp_path.glob("*.ran")] == ["beside.ran"]


def test_the_command_says_that_a_target_is_run():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        run = subprocess.run(
            [sys.executable, "-m", "jaxchain", "show", "--help"], capture_output=True, text=True, check=False
        )
    assert "Importing it runs its code" in " ".join(run.stdout.split())
