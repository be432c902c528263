"""The house itself: what the documents say is there, and the gate refuses what it should."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from osler.cli import _parse
from tools.check_sizes import MAX_LINES, MAX_WEIGHTS_BYTES, complaints

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
OSLER_COMMANDS = re.findall(r"^(?:\.venv/bin/)?osler (.+)$", README, re.MULTILINE)


def test_the_readme_shows_every_verb() -> None:
    shown = {command.split()[0] for command in OSLER_COMMANDS}
    assert shown == set(
        (
            "ask classify deidentify embed finetune info listen look merge pull push quantize "
            "record result serve show"
        ).split()
    )


@pytest.mark.parametrize("command", OSLER_COMMANDS)
def test_the_readmes_commands_parse(command: str) -> None:
    assert _parse(shlex.split(command)).run


def test_the_readmes_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert targets >= {"demo", "test", "check"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_file_tree_of_the_readme_exists() -> None:
    tree = README.split("## The files")[1].split("```")[1]
    package = ROOT
    for line in tree.strip().splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            package = ROOT / name if name == "src/osler/" else ROOT
        assert (package / name if line.startswith(" ") else ROOT / name).exists(), name


def test_links_of_the_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_the_locks_pin_all_that_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    running = project["project"]["dependencies"] + extras["demo"]
    building = extras["dev"] + project["build-system"]["requires"]
    pinned = _pins("requirements.lock")
    assert _names(running) <= pinned
    assert _names(building) <= pinned | _pins("requirements-dev.lock")


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=~!\[ ]", line)[0].lower().replace("_", "-") for line in requirements}


def _pins(lock: str) -> set[str]:
    lines = (ROOT / lock).read_text().splitlines()
    pins = [line for line in lines if not line.startswith(("#", "-r"))]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+(; .+)?", pin) for pin in pins)
    return _names(pins)


def test_long_files_and_heavy_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "long.py").write_text("x = 1\n" * (MAX_LINES + 1))
    (tmp_path / "right.py").write_text("x = 1\n" * MAX_LINES)
    for half in ("a", "b"):
        with (tmp_path / "weights" / half).open("wb") as file:
            file.truncate(MAX_WEIGHTS_BYTES // 2 + 1)
    names = ["long.py", "right.py", "weights/a", "weights/b", "deleted.py"]
    found = complaints(tmp_path, names)
    assert [line.split(":")[0] for line in found] == ["long.py", "weights/"]
