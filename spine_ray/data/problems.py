"""Why a picture cannot be used, in words: the same in the audit and in a table of predictions."""

from PIL import Image, UnidentifiedImageError

NO_BYTES = "no bytes"
NOT_OPENED = "the file is missing or may not be read"
NOT_A_PICTURE = "not a picture of a known kind"
DAMAGED = "truncated or damaged"
TOO_LARGE = "too many pixels to decode safely"


def problem_of(error: Exception) -> str:
    """Return what an error of decoding says about the picture.

    Pillow's decoders answer broken bytes with errors of many kinds, SyntaxError and struct.error among them.
    """
    if isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        return TOO_LARGE
    if isinstance(error, UnidentifiedImageError):
        return NOT_A_PICTURE
    return DAMAGED
