"""Names from a model cannot act on a terminal, a CI service, or a reader's eye."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecompress.report.names import defuse, elide, plain


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("conv1", "conv1"),
        ("onnx::Conv_123", "onnx::Conv_123"),
        ("a\nb\tc", "a b c"),
        ("\x1b]0;pwned\x07x", "]0;pwnedx"),
        ("\x1b[2J", "[2J"),
        ("a\u202eb\u200bc\u2066d", "abcd"),
        ("a\u2028b\u0085c", "a b c"),
        ("::error::x", ": :error::x"),
        ("  ::stop-commands::x", "  : :stop-commands::x"),
        ("x\n::error::y", "x ::error::y"),
        ("##vso[task.setvariable]x", "# #vso[task.setvariable]x"),
        ("a ##[error]x", "a # #[error]x"),
        ("Kanäle µ ✓", "Kanäle µ ✓"),
    ],
)
def test_plain(name: str, shown: str) -> None:
    assert plain(name) == shown


@given(st.text())
def test_plain_has_no_control_character(name: str) -> None:
    shown = plain(name)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)
    assert not shown.lstrip().startswith("::")
    assert "##[" not in shown
    assert plain(shown) == shown


@given(st.text(alphabet=":#[ \nvso"))
def test_defuse_leaves_no_command_on_any_line(text: str) -> None:
    for line in defuse(text).split("\n"):
        assert not line.lstrip().startswith("::")
        assert "##[" not in line
        assert "##vso[" not in line


@given(st.text(), st.integers(min_value=0, max_value=40))
def test_elide_fits_and_keeps_both_ends(text: str, width: int) -> None:
    shown = elide(text, width)
    assert len(shown) <= width or shown == text
    if len(text) <= width:
        assert shown == text
    elif width >= 3:
        assert shown[0] == text[0]
        assert shown[-1] == text[-1]
        assert len(shown) == width
