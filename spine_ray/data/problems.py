"""Why a picture cannot be used, in words: the same in the audit and in a table of predictions."""

from PIL import UnidentifiedImageError

from spine_ray.data.pictures import UnsafePictureError

NO_BYTES = "no bytes"
NOT_OPENED = "the file is missing or may not be read"
NOT_A_PICTURE = "not a picture of a known kind"
DAMAGED = "truncated or damaged"
TOO_LARGE = "too many pixels, or too long a side, to decode safely"
TOO_MANY_BYTES = "larger than a picture's file should be"


def problem_of(error: Exception) -> str:
    """Return what an error of decoding says about the picture.

    Pillow's decoders answer broken bytes with errors of many kinds, SyntaxError and struct.error among them.
    """
    if isinstance(error, UnsafePictureError):
        return TOO_LARGE
    if isinstance(error, UnidentifiedImageError):
        return NOT_A_PICTURE
    return DAMAGED
