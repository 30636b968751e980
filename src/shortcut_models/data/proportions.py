"""Labels in the proportions of a data set, for samples that are to be the same mixture as the real ones."""

import numpy as np
from jaxtyping import Int

from shortcut_models.data.base import Data, Source, take

ENDLESS = 2**24
"""A split with more examples than this is drawn as it is asked for: label i is i modulo the number of classes."""

ROWS = 4096


def class_counts(data: Data) -> Int[np.ndarray, " classes"]:
    """How many examples of the training split each class has; equal ones for data without an end.

    Raises InputError if the data are not here.
    """
    source = data.open(data.splits[0])
    if len(source) > ENDLESS:
        return np.ones(data.num_classes, np.int64)
    return np.bincount(_labels(source), minlength=data.num_classes)


def proportional_labels(counts: Int[np.ndarray, " classes"], count: int) -> Int[np.ndarray, " count"]:
    """`count` labels in the proportions of `counts`, exact by the largest remainder, the lower class where two tie.

    They are mixed as evenly as can be, so that the first thousand, say, have the same proportions nearly. No chance
    is in it: the labels follow from the two arguments alone.
    """
    whole, left = np.divmod(np.asarray(counts, np.int64) * count, int(np.sum(counts)))
    largest = np.argsort(-left, kind="stable")[: count - int(whole.sum())]
    whole[largest] += 1
    labels = np.repeat(np.arange(len(whole), dtype=np.int32), whole)
    # The k-th of n samples of a class stands where k + 1/2 of n parts of all are over.
    places = np.concatenate([(np.arange(number) + 0.5) / number for number in whole if number])
    return labels[np.argsort(places, kind="stable")]


def _labels(source: Source) -> Int[np.ndarray, " count"]:
    """The label of every example; the images themselves are read only where a source cannot tell labels apart."""
    if hasattr(source, "labels"):
        return np.asarray(source.labels(), np.int64)
    parts = [np.arange(i, min(i + ROWS, len(source))) for i in range(0, len(source), ROWS)]
    return np.concatenate([take(source, part)["label"] for part in parts]).astype(np.int64)
