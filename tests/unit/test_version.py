"""hpcreco says which commit it is of, where that is known."""

from __future__ import annotations

import subprocess

import pytest

from hpcreco import __version__, cli, version


@pytest.fixture
def package(tmp_path):
    (tmp_path / "hpcreco").mkdir()
    return tmp_path / "hpcreco"


def git(folder, *words):
    settings = {
        "user.name": "a",
        "user.email": "a@b.c",
        "commit.gpgsign": "false",
        "core.hooksPath": "/nowhere",
    }
    command = ["git", "-C", folder]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    environment = version.of_no_repository()
    run = subprocess.run([*command, *words], check=True, capture_output=True, text=True, env=environment)
    return run.stdout


def test_an_image_has_it_noted(package):
    (package / "_commit").write_text("0123456789abcdef0123\n")
    assert version.commit(package) == "0123456789ab"
    (package / "_commit").write_text("0123456789abcdef0123-dirty\n")
    assert version.commit(package) == "0123456789ab-dirty"
    (package / "_commit").write_text("unknown\n")
    assert version.commit(package) == ""


def test_a_checkout_is_asked_and_says_when_it_was_changed(package):
    git(package.parent, "init", "-q")
    (package / "code.py").write_text("1\n")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "one")
    git(package.parent, "tag", "-a", "v1", "-m", "a tag is not a commit")
    head = git(package.parent, "rev-parse", "HEAD").strip()
    assert version.commit(package) == head[:12]
    (package / "code.py").write_text("2\n")
    assert version.commit(package) == f"{head[:12]}-dirty"


def test_elsewhere_nothing_is_said(package, monkeypatch, capsys):
    assert version.commit(package) == ""
    monkeypatch.setattr(version, "commit", lambda: "")
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"hpcreco {__version__}\n"


def test_the_command_line_shows_it(monkeypatch, capsys):
    monkeypatch.setattr(version, "commit", lambda: "abc")
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"hpcreco {__version__} (commit abc)\n"
