"""What happens to an image before an encoder sees it, as encoders state it and images are read."""

from typing import NamedTuple

WHOLE = -1  # a `resize` that keeps all of the image and no proportions
FILTERS = ("bicubic", "bilinear")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Preprocessing(NamedTuple):
    """From an RGB image of any size to what a network takes."""

    resize: int  # pixels of the short side; WHOLE: both sides become `crop`
    crop: int  # pixels of the square that is left, cut from the centre
    mean: tuple[float, float, float] = IMAGENET_MEAN  # of R, G, B in [0, 1]
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bicubic"  # bicubic | bilinear, antialiased, PIL's pixels

    def __str__(self) -> str:
        if self.resize == WHOLE:
            return f"all of it as {self.crop} x {self.crop}, {self.interpolation}"
        return f"short side {self.resize}, crop {self.crop}, {self.interpolation}"
