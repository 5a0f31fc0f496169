"""Budgets of attacks as users write them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_modules.errors import InputError, told_from


class Budget(float):
    """A budget in pixel units that knows how it was written.

    Attributes:
        written: Such as ``0.25/255``.
    """

    written: str

    def __new__(cls, value: float, written: str) -> Budget:
        budget = super().__new__(cls, value)
        budget.written = written
        return budget

    def __getnewargs__(self) -> tuple[float, str]:  # type: ignore[override]  # for copies, and other processes
        return float(self), self.written


def parse_eps(text: str | float) -> Budget:
    """A budget in pixel units, from a number or a fraction.

    Raises:
        InputError: If it is neither, negative or not finite.

    Example:
        >>> parse_eps("4/255") == 4 / 255, parse_eps("0.5"), parse_eps(0.25)
        (True, 0.5, 0.25)
    """
    try:
        numerator, _, denominator = str(text).partition("/")
        value = float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"eps {text!r} is no number and no fraction such as 4/255.") from None
    if not 0 <= value < math.inf:
        raise InputError(f"eps must be at least 0, got {text}.")
    return Budget(value, "".join(text.split()) if isinstance(text, str) else format_eps(text))


def parse_sweep(eps: Sequence[str | float], norm: str | int) -> list[Budget]:
    """The budgets of a sweep, smallest first, without 0: the clean image always stands beside them.

    Args:
        eps: Numbers, or fractions such as 4/255.
        norm: The norm that they limit. Under ``"inf"`` none may exceed 1, the whole range of a pixel; the length of a
            whole image's perturbation (2 or 1) may.

    Raises:
        InputError: If one is out of range or given twice, or there is none above 0.

    Example:
        >>> parse_sweep(["0.5", 0, "1/4"], "inf")
        [0.25, 0.5]
    """
    values = [parse_eps(value) for value in eps]
    for text, value in zip(eps, values):
        if norm == "inf" and value > 1:
            hint = f" Did you mean {value:g}/255?" if value <= 255 and "/" not in str(text) else ""
            shown = text if isinstance(text, str) else told_from(text, 1, form="g")
            raise InputError(f"eps must be at most 1, the whole range of a pixel, got {shown}.{hint}")
        if values.count(value) > 1:
            raise InputError(f"The sweep has eps {text} twice.")
    sweep = sorted(value for value in values if value > 0)
    if not sweep:
        raise InputError("The sweep has no eps above 0: name at least one budget, as in [1/255, 2/255, 4/255, 8/255].")
    return sweep


def format_eps(eps: float) -> str:
    """The budget as it was written; one that was computed as a short number or ``k/255``, if it is that.

    Example:
        >>> format_eps(parse_eps("0.25/255")), format_eps(4 / 255), format_eps(0.25 / 255), format_eps(0.5)
        ('0.25/255', '4/255', '0.25/255', '0.5')
    """
    if isinstance(eps, Budget):
        return eps.written
    steps = eps * 255
    number, fraction = f"{eps:.4g}", f"{steps:.4g}"
    if math.isclose(float(number), eps, rel_tol=1e-6):
        return number
    if 0.001 <= steps < 255 and math.isclose(float(fraction), steps, rel_tol=1e-6):
        return f"{fraction}/255"
    # What somebody typed has few digits; what was computed has as many as there are.
    return f"{eps:.10g}" if float(f"{eps:.10g}") == eps else f"{eps:.6g}"
