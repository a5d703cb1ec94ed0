import io

import pytest
from PIL import Image

from spine_ray.data.pictures import UnsafePictureError
from spine_ray.data.problems import DAMAGED, NOT_A_PICTURE, TOO_LARGE, problem_of


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UnsafePictureError("90000 x 2 px"), TOO_LARGE),
        (SyntaxError("broken PNG file"), DAMAGED),
        (OSError("image file is truncated"), DAMAGED),
    ],
)
def test_errors_of_decoding_have_words(error: Exception, told: str) -> None:
    assert problem_of(error) == told


def test_what_pillow_does_not_know_is_no_picture() -> None:
    with pytest.raises(OSError) as caught:
        Image.open(io.BytesIO(b"text"))
    assert problem_of(caught.value) == NOT_A_PICTURE
