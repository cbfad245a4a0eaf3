"""What happens to stored samples before a model sees them.

A sample x becomes ``(x * scale - mean) / std`` after its axes are brought into the model's order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

KEYS = ("scale", "mean", "std", "layout", "reshape")
SHORT_LAYOUTS = {"nhwc": "nhwc->nchw", "nchw": "nchw->nhwc"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """Steps from the stored samples to the model's input.

    Attributes:
        scale: Factor; None leaves the values.
        mean: Subtracted after the scale; one value, or one per channel. Empty: nothing.
        std: Divisor after the mean, likewise.
        layout: Axes of the data and of the model as letters, batch ``n`` first:
            ``("nhwc", "nchw")``; None leaves the axes.
        reshape: Shape of one sample, applied first; None leaves it.
        text: As it was written, for the report.
    """

    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: tuple[str, str] | None = None
    reshape: tuple[int, ...] | None = None
    text: str = ""

    @property
    def changes_values(self) -> bool:
        """Whether there is a scale, a mean or a deviation."""
        return self.scale is not None or bool(self.mean) or bool(self.std)


def read_preprocess(text: str) -> Preprocess:
    """Read ``scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nhwc->nchw``.

    Numbers may be fractions; per-channel values are joined by ``:``. ``layout=nhwc`` says that
    the data are NHWC and the model is NCHW; ``layout=nchw`` the other way round.

    Raises:
        ValueError: What is wrong, with the part that is.
    """
    parts: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise ValueError(f"{part.strip()!r} is not of the form key=value")
        if key not in KEYS:
            raise ValueError(f"unknown key {key!r}; keys are {', '.join(KEYS)}")
        if key in parts:
            raise ValueError(f"{key} is given twice")
        parts[key] = value
    mean, std = _numbers(parts, "mean"), _numbers(parts, "std")
    scale = _number("scale", parts["scale"]) if "scale" in parts else None
    if scale == 0.0 or 0.0 in std:
        raise ValueError("scale and std must not be 0")
    if len(mean) > 1 and len(std) > 1 and len(mean) != len(std):
        raise ValueError(f"mean has {len(mean)} values and std has {len(std)}")
    return Preprocess(
        scale=scale,
        mean=mean,
        std=std,
        layout=_layout(parts["layout"]) if "layout" in parts else None,
        reshape=_sizes(parts["reshape"]) if "reshape" in parts else None,
        text=text,
    )


def _number(key: str, text: str) -> float:
    numerator, slash, denominator = text.partition("/")
    try:
        value = float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{key}={text}: not a number or a fraction such as 1/255") from None
    if not math.isfinite(value):
        raise ValueError(f"{key}={text}: not a finite number")
    return value


def _numbers(parts: dict[str, str], key: str) -> tuple[float, ...]:
    return tuple(_number(key, part) for part in parts[key].split(":")) if key in parts else ()


def _layout(text: str) -> tuple[str, str]:
    source, arrow, destination = SHORT_LAYOUTS.get(text, text).partition("->")
    if not arrow or sorted(source) != sorted(destination) or len(set(source)) != len(source):
        raise ValueError(f"layout={text}: write the axes of the data and of the model, nhwc->nchw")
    if not source.isalpha() or not source.startswith("n") or not destination.startswith("n"):
        raise ValueError(f"layout={text}: both sides start with the batch axis n")
    return source, destination


def _sizes(text: str) -> tuple[int, ...]:
    parts = text.split(":")
    if not all(part.isascii() and part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"reshape={text}: write the sizes of one sample, as in 1:28:28")
    return tuple(map(int, parts))
