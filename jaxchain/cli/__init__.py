"""The ``jaxchain`` command: one function a subcommand, its parameters the options.

A command returns what a person reads and what a program reads; `finish` writes one of them. `tyro`
turns signatures into command lines, and JAX is imported when a command runs.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, arg

import jaxchain as jc
from jaxchain.cli.outcome import Answer, Common, finish, in_colours_as_wished, reader_gone, write
from jaxchain.cli.targets import Target, Targets, at_most_one, distinct_names, resolve
from jaxchain.show.values import facts

if TYPE_CHECKING:
    from jaxchain.jacobians import Decision

__all__ = ["main"]

Cuts = Literal["default", "finest", "module", "bundles"]
Granularity = Annotated[
    Cuts | None,
    arg(
        metavar=f"{{{','.join(get_args(Cuts))}}}",
        help="How finely to cut. finest: at every cut; default: the parts of a layer are joined; module: those of a "
        "module; bundles: where few numbers cross, too.",
        help_behavior_hint="(default: default, or a chain's own stages)",
    ),
]
Program = Literal["fun", "jvp", "linearize", "transpose", "vjp", "grad", "vmap", "jit"]
Flag = Annotated[bool, FlagCreatePairsOff]
Output = Annotated[Path, arg(aliases=["-o"], help="The file to write.")]
OpenPage = Annotated[bool, FlagCreatePairsOff, arg(name="open", help="Open the page in the browser.")]
Force = Annotated[bool, FlagCreatePairsOff, arg(help="Replace a file that is not a page of jaxchain, too.")]
Seconds = Annotated[float, arg(metavar="SECONDS")]
Text = Annotated[str | None, arg(metavar="TEXT")]

HINTS = (
    "--all shows every one, --json gives them to programs",
    "--all shows them all, --unfold NAME those of one name",
)
"""How a shell comes to the rows of a trace that are left out, and to those in folds."""

VALUES = ("primal", "tangent", "cotangent")


LOOK = """What to look at:
1. {0}, “The chain rule is a product”: step through it with ▶ in three orders, and see what each costs.
2. {0}, “Along the chain”: where a cotangent grows or dies on its way back, and which stage does it.
3. {1}: the loss is one number, so its Jacobian is one row, the gradient. Which pixels would change the answer?"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default the process's own; the exit code, as `jaxchain.cli.outcome` defines it."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv == ["--version"]:
        return write(f"jaxchain {jc.__version__}")
    commands = (demo, show, trace, transforms, plan, modes, report, compare, diagnose, learn)
    about = f"jaxchain {jc.__version__}: see the chain rule run through any JAX model. Begin with: jaxchain demo. --version prints the version alone."
    try:
        with in_colours_as_wished():
            common, command = tyro.extras.subcommand_cli_from_dict(
                {command.__name__: _deferred(command) for command in commands},
                prog="jaxchain",
                description=about,
                args=argv,
                config=(OmitArgPrefixes,),
            )
    except SystemExit as stop:  # after --help, or a sentence about what is wrong
        return stop.code if isinstance(stop.code, int) else 0
    except BrokenPipeError:
        return reader_gone()
    return finish(common, command)


def _deferred(command: Callable[..., Answer]) -> Callable[..., Any]:
    """What parses the options of a command and leaves running it to `finish`, so that failures have one place."""

    @functools.wraps(command)
    def parsed(*args: Any, common: Common, **options: Any) -> tuple[Common, Callable[[], Answer]]:
        return common, functools.partial(command, *args, common=common, **options)

    return parsed


def show(target: Target, common: Common, granularity: Granularity = None) -> Answer:
    """Print the chain that a function is, one row a stage."""
    with common.working("Discovering the chain"):
        fun, args = resolve(target)
        chain = jc.discover(fun, *args, argnum=target.argnum, granularity=granularity or "default")
    return chain, {"stages": [stage.row for stage in chain]}


def trace(
    target: Target,
    common: Common,
    unfold: Text = None,
    all_: Annotated[Flag, arg(name="all")] = False,
    full: Flag = False,
) -> Answer:
    """Print the evaluation trace: primal, tangent and cotangent of every equation.

    Parameters
    ----------
    unfold
        Show the rows inside of this call or module.
    all_
        Show every row, those inside of calls and modules too.
    full
        With --json, write all entries of every array. Default: its shape, dtype, norm, least, largest and mean entry.
    """
    at_most_one(unfold=unfold, all=all_)
    if full and not common.json:
        msg = "--full would change nothing: it is of --json. Add that, or leave --full out."
        raise ValueError(msg)
    with common.working("Evaluating the trace"):
        fun, args = resolve(target)
        found = jc.trace(fun, *args, argnum=target.argnum)
    shown = found.unfold() if all_ else found if unfold is None else found.unfold(unfold)
    rows = [_picked(row, "name", "formula", "source", *VALUES) for row in found.rows]
    if not full:
        rows = [row | {kind: facts(row[kind]) for kind in VALUES} for row in rows]
    text = shown.text(most=None) if all_ else shown.text(hints=HINTS)
    return text, {"rows": rows, "notes": found.notes}


def transforms(
    target: Target,
    common: Common,
    program: Program | None = None,
    stage: Text = None,
    granularity: Granularity = None,
) -> Answer:
    """Print what each transform makes of the program: jvp, linearize, transpose, vjp, grad, vmap, jit.

    Parameters
    ----------
    program
        Print this program, each line beside the stage that it came from.
    stage
        Print what became of this stage in every program.
    """
    at_most_one(program=program, stage=stage)
    with common.working("Transforming the program"):
        fun, args = resolve(target)
        found = jc.transforms(fun, *args, argnum=target.argnum, granularity=granularity)
    shown = found[program] if program else found if stage is None else found.stage(stage)
    fields = ("name", "title", "equations", "flops", "residual_bytes", "note", "program")
    return shown, {"rows": [_picked(row, *fields) for row in found.rows]}


def plan(target: Target, common: Common, memory_limit: Annotated[int | None, arg(metavar="BYTES")] = None) -> Answer:
    """Print the cheapest way to the whole Jacobian, step by step.

    Parameters
    ----------
    memory_limit
        Most temporary memory in bytes.
    """
    with common.working("Planning"):
        fun, args = resolve(target)
        found = jc.plan(fun, args, argnum=target.argnum, memory_limit=memory_limit)
    return found, _plan(found)


def modes(target: Target, common: Common, repeats: int = 5, time_limit: Seconds = 30.0) -> Answer:
    """Compute the Jacobian in every mode; print work, memory, time and error side by side.

    Parameters
    ----------
    repeats
        Timed calls a mode; the median counts.
    time_limit
        What is predicted to run longer is not run.
    """
    with common.working("Importing the function"):
        fun, args = resolve(target)
    compared = functools.partial(jc.compare_modes, repeats=repeats, time_limit=time_limit, progress=common.progress)
    found = compared(fun, *args, argnum=target.argnum)
    return found, found


def report(
    target: Target,
    common: Common,
    output: Output = Path("report.html"),
    title: Text = None,
    open_page: OpenPage = False,
    force: Force = False,
    granularity: Granularity = None,
) -> Answer:
    """Write one self-contained page about the function: chain, Jacobians, sweeps, modes, programs.

    Parameters
    ----------
    title
        Of the page; default: the function's name.
    """
    with common.working("Importing the function"):
        fun, args = resolve(target)
    path = jc.report(
        fun,
        *args,
        path=output,
        title=title,
        argnum=target.argnum,
        granularity=granularity,
        force=force,
        progress=common.progress,
    )
    return _written(path, open_page), {"report": path}


def compare(
    target: Targets,
    common: Common,
    names: Annotated[tuple[str, str] | None, arg(metavar="NAME_A NAME_B")] = None,
    output: Output = Path("compare.html"),
    title: Text = None,
    open_page: OpenPage = False,
    force: Force = False,
) -> Answer:
    """Put two functions, or one function at two arguments, beside each other on one self-contained page.

    Parameters
    ----------
    names
        What the two are called on the page.
    title
        Of the page; default: the two names.
    """
    second = target.second()
    with common.working("Importing the functions"):
        a, b = resolve(target), resolve(second)
    found = jc.compare(
        a, b, output, names=names or distinct_names(target, second), title=title,
        argnum=target.argnum, force=force, progress=common.progress,
    )  # fmt: skip
    text = f"{found}\n\n{_written(found.path, open_page)}"
    fields = ("rows", "whole", "names", "headline", "sentences")
    return text, {**_picked(found, *fields), "comparison": found.path}


def diagnose(target: Target, common: Common, granularity: Granularity = None) -> Answer:
    """Say whether signals and gradients get through; if not, which stage to look at first and what helps."""
    with common.working("Walking there and back"):
        fun, args = resolve(target)
        found = jc.diagnose(fun, args, argnum=target.argnum, granularity=granularity)
    return found, _picked(found, "verdict", "healthy", "findings", "notes")


def learn(
    common: Common,
    output: Output = Path("learn.html"),
    open_page: OpenPage = False,
    force: Force = False,
) -> Answer:
    """Write the lesson: what the chain rule is and how deep learning applies it, computed as the page is made."""
    with common.working("Loading JAX"):
        from jaxchain.lesson import write_lesson
    path = write_lesson(output, force=force, progress=common.progress)
    return _written(path, open_page), {"lesson": path}


def demo(
    common: Common,
    steps: int = 1500,
    seed: int = 0,
    output: Output = Path("report.html"),
    open_page: OpenPage = False,
    force: Force = False,
) -> Answer:
    """Train a network on handwritten digits; print its chain, plan and modes; write its page, and its loss's.

    Parameters
    ----------
    steps
        Training steps of 64 images each.
    seed
        Of the split of the data, the initial weights and the minibatches.
    output
        The file to write; the loss's page stands beside it.
    """
    with common.working("Loading JAX and the digits"):
        import jax

        from jaxchain.digits import accuracy, fit_digits, load_digits

        net, digits = jc.nets.mlp([64, 128, 64, 10]), load_digits(seed)
        before = net.init(jax.random.key(seed))
    params = fit_digits(net, before, digits, steps=steps, seed=seed + 1, progress=common.progress).params
    image, labels = digits.test[0][0], digits.test[1]
    with common.working("Discovering, planning, and running every mode"):
        read = accuracy(net, params, digits.test)
        chain = jc.discover(net, params, image)
        planned, compared = jc.plan(net, (params, image)), jc.compare_modes(net, params, image, progress=False)
    title = f"A digits network, at a picture of a {labels[0]}"
    path = jc.report(net, params, image, path=output, title=title, force=force, progress=common.progress)
    loss = jc.Chain([*net, jc.Stage("cross_entropy", lambda scores: -jax.nn.log_softmax(scores)[labels[0]])])
    second = output.with_name(f"{output.stem}_loss{output.suffix}")
    jc.report(
        loss, params, image, path=second, title=f"Its loss at that {labels[0]}", force=force, progress=common.progress
    )
    trained = f"After {steps} steps the network reads {read:.1%} of {len(labels)} unseen digits correctly."
    parts = (trained, chain, planned, compared, LOOK.format(path, second), _written(path, open_page))
    data = {"accuracy": read, "steps": steps, "seed": seed, "stages": [stage.row for stage in chain]}
    pages = {"report": path, "loss_report": second}
    return "\n\n".join(map(str, parts)), {**data, "plan": _plan(planned), "modes": compared, **pages}


def _plan(found: Decision) -> dict[str, Any]:
    fields = (
        "mode",
        "why",
        "argument",
        "cost",
        "forward_cost",
        "reverse_cost",
        "names",
        "sizes",
        "chunk_size",
        "steps",
    )
    return _picked(found, *fields)


def _picked(value: object, *fields: str) -> dict[str, Any]:
    return {field: getattr(value, field) for field in fields}


def _written(path: Path, open_page: bool) -> str:
    if open_page:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    return f"Wrote {path}: open it in a browser."
