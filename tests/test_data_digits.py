import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from spine_ray.data.digits import digits_source


def test_digits_are_the_real_scans_in_their_order():
    source = digits_source()
    digits = load_digits()
    assert [row.class_name for row in source.rows] == [str(label) for label in digits.target]
    with Image.open(io.BytesIO(source.read(17))) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (8, 8))
        pixels = np.asarray(picture)
    assert np.abs(pixels - digits.images[17] * 255 / 16).max() <= 0.5


def test_digits_say_that_they_are_the_sample():
    source = digits_source()
    assert source.is_sample
    assert source.rows[17].path == "row 17"
    assert len(source.rows) == 1797
