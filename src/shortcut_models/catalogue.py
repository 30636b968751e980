"""Every name that a user can choose, one line each: where it is defined, and what it is.

This page imports nothing of the package, so that help texts, error messages and files on disk can speak of
every choice without loading JAX. To add a choice: a file with a frozen dataclass, a line here, a test.
"""

import difflib
from importlib import import_module
from typing import Any, NamedTuple

from shortcut_models.errors import InputError


class Entry(NamedTuple):
    """One choice."""

    where: str
    """"module:attribute" within the package: a class, or one of its instances with settings of its own."""
    about: str
    """One line about it."""
    compared: bool = False
    """For objectives: whether `shortcut compare` takes it by default."""
    offered: bool = True
    """Whether a user may choose it; what stands for something that is not here is read, and never chosen."""


DATA = {
    "digits": Entry("data.digits:Digits", "1,797 real 8x8 digits that come with scikit-learn, in 10 classes"),
    "glyphs": Entry("data.glyphs:Glyphs", "62 characters in colour at 32x32, drawn as they are asked for"),
    "points": Entry("data.points:Points", "2-D points on a few shapes, by class"),
    "imagenet256": Entry("data.tfds:IMAGENET256", "ImageNet as TFDS prepared it, cropped to 256x256"),
    "celebahq256": Entry("data.tfds:CELEBAHQ256", "CelebA-HQ at 256x256 as TFDS prepared it"),
    "lsunchurch": Entry("data.tfds:LSUNCHURCH", "LSUN churches as TFDS prepared them, cropped to 256x256"),
    "fashion-mnist": Entry("data.idx:FashionMnist", "70,000 photographs of clothes, 28x28 in grey, in 10 classes"),
    "prepared": Entry("data.prepared:Prepared", "images or latents that `shortcut prepare` wrote"),
    "folder": Entry("data.folder:Folder", "a folder of image files, with or without a folder for each class"),
    "zip": Entry("data.zipped:Zip", "image files in a zip, with EDM2's and StyleGAN's labels if there are any"),
    "tfds": Entry("data.tfds:Tfds", "images that TFDS prepared, as TFRecord or ArrayRecord"),
    "huggingface": Entry("data.huggingface:HuggingFace", "images of Hugging Face datasets: save_to_disk, or parquet"),
    "webdataset": Entry("data.webdataset:WebDataset", "images in the tar files of WebDataset"),
    "npz": Entry("data.npz:Npz", "images in an .npz as ADM and DiT write their samples"),
    "idx": Entry("data.idx:Idx", "IDX files, as of MNIST and its family"),
    "edm2-latents": Entry("data.latents:Edm2Latents", "latents that EDM2's tool encoded, of images in [0, 1]"),
    "repa-latents": Entry("data.latents:RepaLatents", "latents that REPA's tool encoded, of images in [-1, 1]"),
    "pairs": Entry("data.pairs:Pairs", "pairs of noise and sample that `shortcut pairs` drew from a run"),
    "unavailable": Entry(
        "data.unavailable:Unavailable",
        "what is known of the data of a model that came without: not to train on",
        offered=False,
    ),
}

NETWORKS = {
    "dit": Entry("networks.dit:DiT", "diffusion transformer for images and latents (arXiv 2212.09748)"),
    "mlp": Entry("networks.mlp:MLP", "multilayer perceptron for points"),
    "epsilon-dit": Entry(
        "interop.epsilon_dit:EpsilonDiT", "a DiT that predicts noise, as a velocity: to sample only", offered=False
    ),
}

OBJECTIVES = {
    "flow-matching": Entry(
        "objectives.flow_matching:FlowMatching", "the velocity alone (arXiv 2210.02747)", compared=True
    ),
    "flow-matching-original": Entry("objectives.flow_matching:ORIGINAL", "with the official code's constants"),
    "shortcut": Entry(
        "objectives.shortcut:Shortcut", "a jump lands where two half ones do (arXiv 2410.12557)", compared=True
    ),
    "shortcut-original": Entry("objectives.shortcut:ORIGINAL", "with the official code's constants", compared=True),
    "progressive": Entry(
        "objectives.progressive:Progressive", "halves the steps, stage by stage (arXiv 2202.00512)", compared=True
    ),
    "progressive-original": Entry("objectives.progressive:ORIGINAL", "with the official code's constants"),
    "consistency-distillation": Entry(
        "objectives.consistency_distillation:ConsistencyDistillation",
        "neighbours along a trained flow jump to the same end (arXiv 2303.01469)",
        compared=True,
    ),
    "consistency-distillation-original": Entry(
        "objectives.consistency_distillation:ORIGINAL", "with the official code's constants"
    ),
    "consistency": Entry(
        "objectives.consistency:Consistency", "neighbours jump to the same end (arXiv 2303.01469)", compared=True
    ),
    "consistency-original": Entry("objectives.consistency:ORIGINAL", "with the official code's constants"),
    "live-reflow": Entry(
        "objectives.live_reflow:LiveReflow", "straight lines to its own samples (arXiv 2209.03003)", compared=True
    ),
    "live-reflow-original": Entry("objectives.live_reflow:ORIGINAL", "with the official code's constants"),
    "reflow": Entry(
        "objectives.reflow:Reflow", "flow matching on a flow's own pairs (arXiv 2209.03003)", compared=True
    ),
    "reflow-original": Entry("objectives.reflow:ORIGINAL", "with the official code's constants"),
}

SAMPLERS = {
    "few-step": Entry("interop.samplers:FewStep", "even jumps of a length that the network is told; to sample only"),
    "ddim": Entry("interop.samplers:Ddim", "DDIM's steps without noise (arXiv 2010.02502); to sample only"),
}
"""What stands for the objective of an imported model that none of ours has trained."""

TEACHER = "flow-matching"
"""The objective that trains the flow which methods in two stages make something of."""

METRICS = {
    "frechet-pixels": Entry("metrics.gaussian:FRECHET_PIXELS", "squared Fréchet distance over the pixels in [-1, 1]"),
    "frechet-pixels7x7": Entry(
        "metrics.gaussian:FRECHET_PIXELS7X7", "squared Fréchet distance over pixels averaged to 7x7"
    ),
    "frechet-pixels8x8": Entry(
        "metrics.gaussian:FRECHET_PIXELS8X8", "squared Fréchet distance over pixels averaged to 8x8"
    ),
    "frechet-digitnet1": Entry(
        "metrics.gaussian:FRECHET_DIGITNET1", "squared Fréchet distance over 64 features of our digit reader"
    ),
    "frechet-fashionnet1": Entry(
        "metrics.gaussian:FRECHET_FASHIONNET1", "squared Fréchet distance over our classifier of clothes"
    ),
    "frechet-glyphnet1": Entry(
        "metrics.gaussian:FRECHET_GLYPHNET1", "squared Fréchet distance over 64 features of our glyph reader"
    ),
    "agreement-digitnet1": Entry(
        "metrics.agreement:AGREEMENT_DIGITNET1", "share of 8x8 digits read as the class asked for"
    ),
    "agreement-fashionnet1": Entry("metrics.agreement:AGREEMENT_FASHIONNET1", "share of clothes read as asked for"),
    "agreement-glyphnet1": Entry(
        "metrics.agreement:AGREEMENT_GLYPHNET1", "share of glyphs read as the class asked for"
    ),
    "fid-paper": Entry("metrics.inception:FID_PAPER", "FID as the paper's code has it: from floats"),
    "fid-adm": Entry("metrics.inception:FID_ADM", "FID as ADM's evaluator, torch-fidelity and EDM2 have it"),
    "fid-clean": Entry("metrics.inception:FID_CLEAN", "FID as clean-fid has it (arXiv 2104.11222)"),
    "fid-infinity": Entry("metrics.inception:FID_INFINITY", "fid-adm without the bias of the number of samples"),
    "sfid-adm": Entry("metrics.inception:SFID_ADM", "FID over 17x17x7 spatial features (arXiv 2103.03841)"),
    "is-adm": Entry("metrics.inception:IS_ADM", "Inception score over chunks of 5,000 images in order"),
    "is-fidelity": Entry("metrics.inception:IS_FIDELITY", "Inception score over ten shuffled parts"),
    "kid": Entry("metrics.inception:KID", "kernel Inception distance over all pairs (arXiv 1801.01401)"),
    "pr-adm": Entry("metrics.inception:PR_ADM", "precision and recall, third neighbours (arXiv 1904.06991)"),
    "prdc": Entry("metrics.inception:PRDC", "density and coverage, fifth neighbours (arXiv 2002.09797)"),
    "memorisation": Entry("metrics.inception:MEMORISATION", "how near samples are to training images"),
    "energy": Entry("metrics.points:ENERGY", "energy distance between points (Székely & Rizzo, 2013)"),
    "sliced-wasserstein": Entry(
        "metrics.points:SLICED_WASSERSTEIN", "2-Wasserstein distance between points, over 64 directions"
    ),
}

FIGURES = {
    "curves": Entry("figures.curves:FIGURE", "learning curves of each step size"),
    "error": Entry("figures.error:FIGURE", "error of velocity and jumps against time"),
    "budgets": Entry("figures.budgets:FIGURE", "the same noise in 1, 2, 4, ..., 128 steps"),
    "classes": Entry("figures.classes:FIGURE", "a sheet of samples, a row per class"),
    "reconstruction": Entry("figures.reconstruction:FIGURE", "examples noised to each level, and one jump back"),
    "interpolation": Entry("figures.interpolation:FIGURE", "samples between two noises"),
    "nearest": Entry("figures.nearest:FIGURE", "samples beside their nearest training images"),
}

PRESETS = {
    "digits": Entry("presets.digits:PRESET", "1,797 real 8x8 digits, by class: the demo, minutes on two CPU cores"),
    "points": Entry("presets.points:PRESET", "2-D points on a few shapes, by class: seconds on a CPU"),
    "images16": Entry("presets.images16:PRESET", "your own pictures at 16x16: --data OUT of `shortcut prepare`"),
    "images32": Entry("presets.images32:PRESET", "your own pictures at 32x32: --data OUT of `shortcut prepare`"),
    "images64": Entry("presets.images64:PRESET", "your own pictures at 64x64: for a GPU"),
    "celebahq256-b": Entry("presets.celebahq256_b:PRESET", "CelebA-HQ 256 without labels, DiT-B, as in the paper"),
    "celebahq256-b-improved": Entry(
        "presets.celebahq256_b_improved:PRESET", "the same with most remedies of docs/ladder.md: untried"
    ),
    "imagenet256-b": Entry("presets.imagenet256_b:PRESET", "ImageNet 256 by class, DiT-B, as in the paper"),
    "imagenet256-b-improved": Entry("presets.imagenet256_b_improved:PRESET", "the same with those remedies: untried"),
    "imagenet256-xl": Entry("presets.imagenet256_xl:PRESET", "the same with DiT-XL: for many devices"),
    "imagenet256-xl-improved": Entry("presets.imagenet256_xl_improved:PRESET", "the same with those remedies: untried"),
    "emoji": Entry("presets.emoji:PRESET", "3,786 emoji at 16x16, by category: for two CPU cores"),
    "fashion": Entry("presets.fashion:PRESET", "60,000 photographs of clothes at 28x28, by class: for two CPU cores"),
    "glyphs": Entry("presets.glyphs:PRESET", "62 characters in colour at 32x32: for a GPU"),
}


def find(kind: str, names: dict[str, Entry], name: str) -> Any:
    """What the catalogue's `name` stands for; raises InputError, listing the names, for an unknown one.

    `kind` is the word for it in that sentence, such as "objective".
    """
    check(kind, names, name)
    module, attribute = names[name].where.split(":")
    return getattr(import_module(f"shortcut_models.{module}"), attribute)


def check(kind: str, names: dict[str, Entry], name: str) -> None:
    """Raise InputError, listing the names, unless the catalogue has this one."""
    if name in names:
        return
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]!r}? The" if near else "the"
    raise InputError(f"{kind} {name!r} is unknown: {hint} names are {', '.join(offered(names))}.")


def offered(names: dict[str, Entry]) -> dict[str, Entry]:
    """Those that a user may choose."""
    return {name: entry for name, entry in names.items() if entry.offered}


def kind_of(names: dict[str, Entry], choice: Any) -> str:
    """The catalogue's name of a dataclass instance's class: its "kind" on disk."""
    cls = type(choice)
    where = f"{cls.__module__.removeprefix('shortcut_models.')}:{cls.__qualname__}"
    return next(name for name, entry in names.items() if entry.where == where)
