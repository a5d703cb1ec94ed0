"""What mistakes cost: a table by class names, as a space file holds it, and as numbers in the order of the classes."""

import math
from collections.abc import Mapping, Sequence

from spine_ray.space.keys import closest

CostMatrix = Mapping[str, Mapping[str, float]]
"""By true class, then by decided class; a mistake that is not named costs 1, a right decision 0."""


def check_cost_matrix(matrix: object) -> None:
    """Refuse what is no table of costs.

    Raises:
        ValueError: Saying what it must be.
    """
    shape = "cost_matrix must hold costs by true class and decided class, such as {wolf: {dog: 10}}"
    if not isinstance(matrix, Mapping) or not all(isinstance(row, Mapping) for row in matrix.values()):
        raise ValueError(f"{shape}, not {matrix!r}")
    for truth, row in matrix.items():
        for decided, cost in row.items():
            is_number = isinstance(cost, int | float) and not isinstance(cost, bool)
            if not is_number or not math.isfinite(cost) or cost < 0:
                raise ValueError(f"cost_matrix: {truth} decided as {decided} must cost a number of at least 0")


def cost_table(matrix: CostMatrix, classes: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """Return the costs, [truth][decision] in the order of the classes.

    Raises:
        ValueError: If a class is not one of the data's.
    """
    named = {str(truth): {str(decided): cost for decided, cost in row.items()} for truth, row in matrix.items()}
    for name in [*named, *(decided for row in named.values() for decided in row)]:
        if name not in classes:
            near = closest(name, classes)
            hint = f" (did you mean {near}?)" if near else ""
            raise ValueError(f"cost_matrix names {name!r}, which is no class of the data{hint}")
    return tuple(
        tuple(float(named.get(truth, {}).get(decided, truth != decided)) for decided in classes) for truth in classes
    )
