"""Make `Inter-*.ttf` from the package's variable subsets; see README.md. Not run by the product."""

import sys
from pathlib import Path

from fontTools.merge import Merger  # type: ignore[import-not-found]
from fontTools.ttLib import TTFont  # type: ignore[import-not-found]
from fontTools.varLib.instancer import instantiateVariableFont  # type: ignore[import-not-found]

SUBSETS = (
    "latin", "latin-ext", "greek", "greek-ext", "cyrillic", "cyrillic-ext", "vietnamese",
)  # fmt: skip
WEIGHTS = {"Regular": 400, "SemiBold": 600}
NAMED = {2: "{}", 3: "Inter {}", 4: "Inter {}", 6: "Inter-{}"}
DROPPED = ("GSUB", "GPOS", "GDEF", "STAT", "HVAR", "MVAR", "avar", "gasp", "meta")


def main(source: Path) -> None:
    """Into the folder of this file."""
    here = Path(__file__).parent
    for name, weight in WEIGHTS.items():
        parts = []
        for subset in SUBSETS:
            font = TTFont(source / f"inter-{subset}-wght-normal.woff2", recalcTimestamp=False)
            font = instantiateVariableFont(font, {"wght": weight})
            for table in DROPPED:
                if table in font:
                    del font[table]
            font.flavor = None
            part = here / f"{subset}.part.ttf"
            font.save(part)
            parts.append(part)
        merged = Merger().merge([str(part) for part in parts])
        merged.recalcTimestamp = False
        # PDF tells fonts apart by these names; the subsets all say the variable font's.
        for record in merged["name"].names:
            if record.nameID in NAMED:
                record.string = NAMED[record.nameID].format(name)
        merged["head"].created = merged["head"].modified = 0
        merged.save(here / f"Inter-{name}.ttf")
        for part in parts:
            part.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
