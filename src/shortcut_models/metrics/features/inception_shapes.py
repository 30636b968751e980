"""Names and shapes of Inception's published PyTorch tensors, for which a file is checked before it is believed.

A convolution stands here as outputs, inputs, height and width of its kernel.
"""

Shape = tuple[int, int, int, int]
Branches = dict[str, Shape]

STEM: Branches = {
    "Conv2d_1a_3x3": (32, 3, 3, 3),
    "Conv2d_2a_3x3": (32, 32, 3, 3),
    "Conv2d_2b_3x3": (64, 32, 3, 3),
    "Conv2d_3b_1x1": (80, 64, 1, 1),
    "Conv2d_4a_3x3": (192, 80, 3, 3),
}


def _block_a(inputs: int, pooled: int) -> Branches:
    return {
        "branch1x1": (64, inputs, 1, 1),
        "branch5x5_1": (48, inputs, 1, 1),
        "branch5x5_2": (64, 48, 5, 5),
        "branch3x3dbl_1": (64, inputs, 1, 1),
        "branch3x3dbl_2": (96, 64, 3, 3),
        "branch3x3dbl_3": (96, 96, 3, 3),
        "branch_pool": (pooled, inputs, 1, 1),
    }


def _block_c(narrow: int) -> Branches:
    return {
        "branch1x1": (192, 768, 1, 1),
        "branch7x7_1": (narrow, 768, 1, 1),
        "branch7x7_2": (narrow, narrow, 1, 7),
        "branch7x7_3": (192, narrow, 7, 1),
        "branch7x7dbl_1": (narrow, 768, 1, 1),
        "branch7x7dbl_2": (narrow, narrow, 7, 1),
        "branch7x7dbl_3": (narrow, narrow, 1, 7),
        "branch7x7dbl_4": (narrow, narrow, 7, 1),
        "branch7x7dbl_5": (192, narrow, 1, 7),
        "branch_pool": (192, 768, 1, 1),
    }


def _block_e(inputs: int) -> Branches:
    return {
        "branch1x1": (320, inputs, 1, 1),
        "branch3x3_1": (384, inputs, 1, 1),
        "branch3x3_2a": (384, 384, 1, 3),
        "branch3x3_2b": (384, 384, 3, 1),
        "branch3x3dbl_1": (448, inputs, 1, 1),
        "branch3x3dbl_2": (384, 448, 3, 3),
        "branch3x3dbl_3a": (384, 384, 1, 3),
        "branch3x3dbl_3b": (384, 384, 3, 1),
        "branch_pool": (192, inputs, 1, 1),
    }


BLOCKS: dict[str, Branches] = {
    "5b": _block_a(192, 32),
    "5c": _block_a(256, 64),
    "5d": _block_a(288, 64),
    "6a": {
        "branch3x3": (384, 288, 3, 3),
        "branch3x3dbl_1": (64, 288, 1, 1),
        "branch3x3dbl_2": (96, 64, 3, 3),
        "branch3x3dbl_3": (96, 96, 3, 3),
    },
    "6b": _block_c(128),
    "6c": _block_c(160),
    "6d": _block_c(160),
    "6e": _block_c(192),
    "7a": {
        "branch3x3_1": (192, 768, 1, 1),
        "branch3x3_2": (320, 192, 3, 3),
        "branch7x7x3_1": (192, 768, 1, 1),
        "branch7x7x3_2": (192, 192, 1, 7),
        "branch7x7x3_3": (192, 192, 7, 1),
        "branch7x7x3_4": (192, 192, 3, 3),
    },
    "7b": _block_e(1280),
    "7c": _block_e(2048),
}
CONVOLUTIONS = STEM | {
    f"Mixed_{block}.{branch}": shape for block, branches in BLOCKS.items() for branch, shape in branches.items()
}
PARTS = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
LAST: dict[str, tuple[int, ...]] = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
SHAPES = {
    f"{name}.{part}": shape if part == "conv.weight" else shape[:1]
    for name, shape in CONVOLUTIONS.items()
    for part in PARTS
} | LAST
