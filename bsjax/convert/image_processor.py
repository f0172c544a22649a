"""What preprocessor_config.json of a repository says about images, as CLIP and SigLIP have it."""

import pathlib
from types import NoneType
from typing import Any

from bsjax.convert.config_keys import Key, check_keys, read_object, shown
from bsjax.convert.encoder_files import PROCESSOR
from bsjax.core.errors import UserError
from bsjax.core.preprocessing import WHOLE, Preprocessing

FILTERS = {2: "bilinear", 3: "bicubic"}  # by PIL's number
CLASSES = tuple(
    f"{family}{kind}" for family in ("CLIP", "Siglip")
    for kind in ("ImageProcessor", "ImageProcessorFast", "FeatureExtractor")
)  # fmt: skip
LARGEST = 1 << 14  # pixels
KEYS = {
    "image_processor_type": Key((str,), CLASSES),
    "feature_extractor_type": Key((str,), CLASSES),
    "do_resize": Key((bool,), True, default=True),
    "size": Key((int, dict)),
    "do_center_crop": Key((bool, NoneType)),
    "crop_size": Key((int, dict, NoneType)),
    "resample": Key((int,), tuple(FILTERS)),
    "do_rescale": Key((bool,), True, default=True),
    "rescale_factor": Key((float,), least=0.0039215, most=0.0039216),
    "do_normalize": Key((bool,), True, default=True),
    "image_mean": Key((list,), items=(float,), least=0, most=1),
    "image_std": Key((list,), items=(float,), least=1e-3, most=10),
    "do_pad": Key((bool, NoneType), (False, None)),
    "use_square_size": Key((bool,), False),
}
# Images are RGB here whatever it says; the rest is about arrays that are handed to torch.
HARMLESS = (
    "do_convert_rgb", "processor_class", "data_format", "input_data_format", "return_tensors",
    "device", "disable_grouping", "default_to_square", "pad_size",
)  # fmt: skip


def read_preprocessing(folder: pathlib.Path, default: Preprocessing, flag: str) -> Preprocessing:
    """The preprocessing of a repository.

    Args:
      folder: of the repository.
      default: what an absent file and absent keys stand for.
      flag: what an error tells the user to set.

    Raises:
      UserError: keys that are unknown or ask for what is not done here, a damaged file.
    """
    path = folder / PROCESSOR
    content = read_object(path)
    if content is None:
        return default
    values = check_keys(str(path), content, KEYS, HARMLESS, flag)

    def refuse(key: str, expected: str) -> UserError:
        return UserError(
            f"{path} cannot be followed: {key}={shown(content.get(key))}: expected {expected}; set"
            f" {flag} to a repository without that"
        )

    for key in ("image_mean", "image_std"):
        if key in values and len(values[key]) != 3:
            raise refuse(key, "three numbers")
    resize, crop = default.resize, default.crop
    is_cropped = values.get("do_center_crop", default.resize != WHOLE)
    if "size" in values:
        side = _square(values["size"])
        short = values["size"]
        if isinstance(short, dict):
            short = short.get("shortest_edge") if list(short) == ["shortest_edge"] else None
        if is_cropped and _is_pixels(short):
            resize = short
        elif not is_cropped and side:
            resize, crop = WHOLE, side
        else:
            raise refuse(
                "size",
                "a shortest_edge with do_center_crop, or an equal height and width without it",
            )
    if is_cropped and "crop_size" in values:
        crop = _square(values["crop_size"])
        if not crop or crop > resize:
            raise refuse("crop_size", "an equal height and width, at most the shortest_edge")
    return Preprocessing(
        resize,
        crop,
        tuple(values.get("image_mean", default.mean)),
        tuple(values.get("image_std", default.std)),
        FILTERS[values.get("resample", 3)],  # as the classes have it
    )


def _is_pixels(value: Any) -> bool:
    return type(value) is int and 1 <= value <= LARGEST


def _square(size: Any) -> int:
    """The side of a size that is a square; 0: it is none."""
    if isinstance(size, dict):
        if sorted(size) != ["height", "width"] or size["height"] != size["width"]:
            return 0
        size = size["height"]
    return size if _is_pixels(size) else 0
