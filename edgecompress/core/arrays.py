"""Array types that the rooms share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
CodeArray = NDArray[np.int8]
Array = NDArray[Any]
Shape = tuple[int, ...]
