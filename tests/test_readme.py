"""The README's tour runs as written and prints what it says."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"```(python|text)\n(.*?)```", re.DOTALL)


def said_and_done(capsys):
    """Each Python block's output in the README, and when run, in one namespace from top to bottom."""
    blocks = BLOCK.findall(README.read_text(encoding="utf-8"))
    namespace: dict[str, object] = {}
    for (language, code), (following, said) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if language != "python":
            continue
        exec(compile(code, "README.md", "exec"), namespace)
        yield code, said if following == "text" else "", capsys.readouterr().out


def test_the_tour_prints_what_the_readme_says(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "118")
    checked = 0
    for code, said, done in said_and_done(capsys):
        assert [line.split() for line in done.splitlines()] == [line.split() for line in said.splitlines()], code
        checked += bool(said)
    assert checked >= 8
