"""Target files: what is refused, and that every problem is named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecompress.core.errors import ConfigurationInvalid
from edgecompress.hardware.families import family_named, list_families
from edgecompress.hardware.target import TARGET_FOLDER, list_targets, load_target, parse_target

SHIPPED = (
    "bitfusion-45nm",
    "bitserial-pynq-z1",
    "bitserial-ultra96",
    "cortex-m4",
    "cortex-m55",
    "cortex-m7",
    "ethos-u55-128",
    "ethos-u55-256",
    "ethos-u65-256",
    "ethos-u65-512",
    "ethos-u85-1024",
    "ethos-u85-256",
    "ethos-u85-512",
    "lutmac-ultra96",
    "roofline-cortex-a53",
    "roofline-generic",
    "systolic-is-32",
    "systolic-os-32",
    "systolic-ws-32",
    "systolic-ws-32-dictionary",
    "tdla-z7020",
    "winocnn-pynq-z1-w4",
    "winocnn-sparse-zcu102-w8",
    "winocnn-ultra96-w4",
    "winocnn-zcu102-w4",
    "winocnn-zcu102-w6",
)
FAMILIES = (
    "bit_fusion",
    "bit_serial",
    "ethos_u",
    "lut_mac",
    "mcu",
    "roofline",
    "systolic_is",
    "systolic_os",
    "systolic_ws",
    "ternary_engine",
    "winocnn",
)


def text(name: str = "systolic-ws-32") -> str:
    return (TARGET_FOLDER / f"{name}.toml").read_text()


def refusal(content: str) -> str:
    with pytest.raises(ConfigurationInvalid) as caught:
        parse_target(content.encode(), where="mine.toml")
    assert caught.value.exit_code == 7
    assert str(caught.value).startswith("mine.toml: ")
    return str(caught.value)


def test_shipped_targets() -> None:
    assert list_targets() == SHIPPED
    for name in SHIPPED:
        target = load_target(name)
        assert target.name == name
        assert target.model_error_source
        assert all(source for _, source in target.sources)


def test_a_target_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text().replace('"systolic-ws-32"', '"mine"'))
    assert load_target(path).name == "mine"
    assert load_target(str(path)) == load_target(path)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationInvalid, match=r"no target 'vpu'.*winocnn-zcu102-w6"):
        load_target("vpu")


def test_unknown_family() -> None:
    message = refusal(text().replace('"systolic_ws"', '"vpu"'))
    assert "unknown family 'vpu'" in message
    assert ", ".join(FAMILIES) in message


def test_every_problem_at_once() -> None:
    content = text().replace("clock_hz = 500e6", "clock_hz = 0.0\nclock_mhz = 500.0")
    content = content.replace("array_rows = 32", "array_rows = -32\narray_depth = 2")
    content = content.replace('rank_multiple = "', 'rank = "')
    message = refusal(content)
    for place in ("clock_hz", "clock_mhz", "parameters.array_rows", "parameters.array_depth"):
        assert f"{place}: " in message
    assert "nothing for rank_multiple" in message
    assert "parameters.array_depth: unknown key; keys are array_rows, " in message
    assert "parameters.array_rows: should be greater than 0, not -32" in message
    assert "rank is not a number of this file" in message
    assert "8 errors: " in message


@pytest.mark.parametrize("value", ["0.0", "-1.0", "nan", "inf", '"500e6"', "true"])
def test_numbers_are_positive_and_finite(value: str) -> None:
    assert "clock_hz" in refusal(text().replace("clock_hz = 500e6", f"clock_hz = {value}"))


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "nan"])
def test_counts_are_positive_integers(value: str) -> None:
    message = refusal(text().replace("array_rows = 32", f"array_rows = {value}"))
    assert "parameters.array_rows" in message


@pytest.mark.parametrize("content", ["= 3", "\xff\xfe", "name = 'a'\nname = 'b'"])
def test_not_toml(content: str) -> None:
    with pytest.raises(ConfigurationInvalid, match="not a TOML file"):
        parse_target(content.encode("latin-1"), where="mine.toml")


def test_empty_file_names_what_is_missing() -> None:
    message = refusal("")
    assert "clock_hz: missing" in message
    assert "sources: missing" in message


def test_families_are_found_by_listing() -> None:
    assert list_families() == FAMILIES
    assert {load_target(name).family for name in SHIPPED} == set(list_families())
    for name in list_families():
        assert family_named(name).parameters.model_config["extra"] == "forbid"


def test_the_example_of_the_documentation_is_valid() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "targets.md").read_text()
    example = page.split("```toml\n")[1].split("```")[0]
    assert parse_target(example.encode(), where="docs").name == "my-array"
