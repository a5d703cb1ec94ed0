"""Counts as people read them: 1 picture is, 2 pictures are."""


def counted(count: int, one: str, many: str) -> str:
    """Write a count with what it counts, and with its verb where there is one.

    Args:
        count: How many.
        one: What follows if it is one, such as `picture is`.
        many: What follows else, such as `pictures are`.
    """
    return f"{count} {one if count == 1 else many}"
