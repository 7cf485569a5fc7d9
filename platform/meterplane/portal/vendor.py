"""Fetch and check the portal's browser assets: `python -m meterplane.portal.vendor [--check]`.

Guarantees that what lies in `static/portal/vendor/` is exactly what `vendor.toml` names: one
version, one SHA-256 and one licence per file, nothing else. Without `--check` it packs the named
versions with the maintainer's own npm client and rewrites files and hashes; users and CI never need
npm.

Does not know where npm finds its packages: that is the client's configuration.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MANIFEST = HERE / "vendor.toml"
TARGET = HERE / "static" / "portal" / "vendor"

_SOURCE_MAP = re.compile(rb"\n?//# sourceMappingURL=\S+\s*$")
_SVG_BODY = re.compile(r"<svg[^>]*>(.*)</svg>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Asset:
    """One shipped file, as the manifest names it."""

    package: str
    version: str
    licence: str
    path: str
    name: str
    sha256: str
    icons: tuple[str, ...]


def read_manifest(text: str | None = None) -> list[Asset]:
    """The assets of `vendor.toml`, in its order."""
    manifest = tomllib.loads(MANIFEST.read_text() if text is None else text)
    return [
        Asset(
            package=package["name"],
            version=package["version"],
            licence=package["licence"],
            path=file["path"],
            name=file["as"],
            sha256=file["sha256"],
            icons=tuple(package.get("icons", ())),
        )
        for package in manifest["package"]
        for file in package["file"]
    ]


def licence_name(package: str) -> str:
    """Where a package's licence text lies in the vendor folder."""
    return "LICENSE." + package.replace("@", "").replace("/", "-") + ".txt"


def problems() -> list[str]:
    """What differs between the manifest and the folder; empty when they agree."""
    assets = read_manifest()
    found = []
    for asset in assets:
        file = TARGET / asset.name
        if not file.is_file():
            found.append(f"{asset.name} is missing")
        elif hashlib.sha256(file.read_bytes()).hexdigest() != asset.sha256:
            found.append(f"{asset.name} is not the file whose SHA-256 the manifest gives")
        if not (TARGET / licence_name(asset.package)).is_file():
            found.append(f"the licence of {asset.package} is missing")
    expected = {asset.name for asset in assets} | {licence_name(asset.package) for asset in assets}
    strays = {file.name for file in TARGET.iterdir()} - expected
    found += [f"{name} is not in the manifest" for name in sorted(strays)]
    return found


def refresh() -> None:
    """Fetch every package of the manifest anew and rewrite files, licences and hashes."""
    text = MANIFEST.read_text()
    licence_files = {p["name"]: p["licence_file"] for p in tomllib.loads(text)["package"]}
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        unpacked: dict[str, Path] = {}
        for asset in read_manifest(text):
            if asset.package not in unpacked:
                unpacked[asset.package] = _unpack(asset.package, asset.version, Path(scratch))
            root = unpacked[asset.package]
            licence = (root / licence_files[asset.package]).read_bytes()
            (TARGET / licence_name(asset.package)).write_bytes(licence)
            body = _sprite(root / asset.path, asset.icons) if asset.icons else _file(root, asset)
            (TARGET / asset.name).write_bytes(body)
            text = _with_hash(text, asset.name, hashlib.sha256(body).hexdigest())
    MANIFEST.write_text(text)


def _unpack(package: str, version: str, scratch: Path) -> Path:
    folder = scratch / package.replace("/", "-")
    folder.mkdir()
    subprocess.run(
        ["npm", "pack", "--silent", f"{package}@{version}"],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    [archive] = folder.glob("*.tgz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "package"


def _file(root: Path, asset: Asset) -> bytes:
    # The static-files storage resolves a source-map comment and fails when the map is not there.
    return _SOURCE_MAP.sub(b"\n", (root / asset.path).read_bytes())


def _sprite(folder: Path, icons: tuple[str, ...]) -> bytes:
    """One SVG with a symbol per icon; stroke and size come from the page's own CSS."""
    symbols = []
    for icon in icons:
        match = _SVG_BODY.search((folder / f"{icon}.svg").read_text())
        if match is None:
            raise SystemExit(f"{icon}.svg holds no <svg> element")
        body = " ".join(match[1].split())
        symbols.append(f'<symbol id="{icon}" viewBox="0 0 24 24">{body}</symbol>')
    lines = "\n".join(symbols)
    return f'<svg xmlns="http://www.w3.org/2000/svg">\n{lines}\n</svg>\n'.encode()


def _with_hash(text: str, name: str, sha256: str) -> str:
    pattern = re.compile(rf'(as = "{re.escape(name)}"\nsha256 = )"[0-9a-f]*"')
    return pattern.sub(rf'\1"{sha256}"', text)


def main() -> int:
    """Refresh, or only check with `--check`. Exit status 1 when anything differs."""
    parser = argparse.ArgumentParser(prog="meterplane.portal.vendor", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, report differences")
    if not parser.parse_args().check:
        refresh()
    found = problems()
    for line in found:
        sys.stderr.write(line + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
