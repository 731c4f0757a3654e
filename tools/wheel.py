"""The build step that carries ``configs/`` and ``jobs/`` into the wheel, as ``hpcreco/_configs`` and ``hpcreco/_jobs``.

In a checkout they stay at the top level, where a reader finds them; ``hpcreco config list`` looks in both places.
"""

from __future__ import annotations

from pathlib import Path

from setuptools.command.build_py import build_py

SHIPPED = ("configs", "jobs")


def shipped_files() -> list[Path]:
    """Files to carry, relative to the repository root."""
    return [path for folder in SHIPPED for path in sorted(Path(folder).rglob("*")) if path.is_file()]


class BuildWithShippedFolders(build_py):
    """``build_py`` that copies the shipped folders too, except into an editable install, which sees the checkout."""

    def run(self) -> None:
        """Builds as usual, then copies."""
        super().run()
        if not self.editable_mode:
            for source in shipped_files():
                target = Path(self.build_lib) / "hpcreco" / f"_{source}"
                self.mkpath(str(target.parent))
                self.copy_file(str(source), str(target))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """What lands in the wheel, for tools that remove it again."""
        copied = (
            []
            if self.editable_mode
            else [str(Path(self.build_lib) / "hpcreco" / f"_{p}") for p in shipped_files()]
        )
        return [*super().get_outputs(include_bytecode), *copied]

    def get_source_files(self) -> list[str]:
        """What an sdist needs to build this wheel."""
        return [*super().get_source_files(), *map(str, shipped_files()), "tools/wheel.py"]
