"""Brings a source distribution from the package index that pip is set up to use, without running its setup.py.

``pip download`` runs setup.py of an sdist to learn its dependencies; MinkowskiEngine's then removes packages and
needs BLAS. pip's own finder and session say where the file is and fetch it, with pip's configuration (index, mirror,
certificates); pip's version is pinned in tools/setup because they are not its public interface.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def fetch(name: str, version: str, sha256: str, folder: Path) -> Path:
    """Puts the sdist ``name==version`` into ``folder``, returns its path; RuntimeError if it is not the known file."""
    from pip._internal.commands import create_command
    from pip._vendor.packaging.specifiers import SpecifierSet

    command = create_command("download")
    options, _ = command.parse_args(["--no-deps", "--no-binary", ":all:", "--quiet", name])
    with command.main_context():
        session = command.get_default_session(options)  # type: ignore[attr-defined]
        finder = command._build_package_finder(options, session)  # type: ignore[attr-defined]  # noqa: SLF001
        found = finder.find_best_candidate(name, SpecifierSet(f"=={version}")).best_candidate
        if found is None:
            raise RuntimeError(
                f"the package index that pip uses has no source distribution of {name} {version}"
            )
        if found.link.is_file:
            data = Path(found.link.file_path).read_bytes()
        else:
            reply = session.get(found.link.url_without_fragment)
            reply.raise_for_status()
            data = reply.content
    if hashlib.sha256(data).hexdigest() != sha256:
        raise RuntimeError(
            f"{found.link.filename} from the package index is not the file known here (sha256 {sha256})"
        )
    path = folder / found.link.filename
    path.write_bytes(data)
    return path
