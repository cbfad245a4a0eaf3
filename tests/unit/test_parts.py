"""Parts: what ships, and what is refused in a file of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.hardware.parts import PART_FOLDER, list_parts, load_part
from edgecompress.hardware.resources import Resources

# Truth: AMD DS891 and DS190 (blocks of 36 Kib count as two).
RESOURCES = {
    "xczu9eg": Resources(dsp=2520, bram18=2 * 912, lut=274_080),
    "xczu3eg": Resources(dsp=360, bram18=2 * 216, lut=70_560),
    "xc7z020": Resources(dsp=220, bram18=2 * 140, lut=53_200),
}


def test_parts_that_ship() -> None:
    assert set(list_parts()) == set(RESOURCES)
    for name, resources in RESOURCES.items():
        part = load_part(name)
        assert part.name == name
        assert part.resources == resources
        assert part.memory_ports == 4


def test_a_part_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = (PART_FOLDER / "xc7z020.toml").read_text()
    path.write_text(text.replace("dsp = 220", "dsp = 90"))
    assert load_part(path).dsp == 90


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("dsp = 220", "dsp = 0", "dsp: should be greater than 0"),
        ("dsp = 220\n", "dsp = 220\nff = 106400\n", "ff: unknown key"),
        ("lut = 53200\n", "", "lut: missing"),
        ('dsp = "published', 'uram = "published', "nothing for dsp; sources: uram is not a number"),
        ("dsp = 220", "dsp = = 220", "not a TOML file"),
    ],
)
def test_what_is_refused(before: str, after: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = (PART_FOLDER / "xc7z020.toml").read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(ConfigurationInvalid, match=r"mine\.toml") as caught:
        load_part(path)
    assert said in str(caught.value)


def test_an_unknown_part_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationInvalid, match=r"no part 'xcvu9p'.*xc7z020, xczu3eg, xczu9eg"):
        load_part("xcvu9p")
