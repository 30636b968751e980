from fractions import Fraction

import jax
import numpy as np
import pytest

from shortcut_models.errors import InputError
from shortcut_models.objectives.stages import Stages


@pytest.mark.parametrize(("count", "total"), [(7, 512_000), (7, 7), (3, 10), (1, 5), (7, 207_360_000)])
def test_a_stage_is_an_equal_share_of_the_images(count: int, total: int) -> None:
    stages = Stages(count, total)
    assert len(stages.starts) == count - 1
    near = {0, total - 1, total, *stages.starts, *(start - 1 for start in stages.starts), total // 2}
    for images in sorted(near):
        expected = min(int(Fraction(images * count, total)), count - 1)  # The original's floor(step / (max / count)).
        assert int(stages.at(images)) == expected
        assert int(jax.jit(stages.at)(np.uint32(images))) == expected
    assert int(stages.at(10 * total)) == count - 1


def test_a_training_too_short_for_its_stages_is_refused_with_the_arithmetic() -> None:
    Stages(7, 70).check("a method", 70)
    Stages(7, 70).check("a method", 700)
    with pytest.raises(InputError, match="7 stages of at least 1 image, but max_steps x batch_size = 6"):
        Stages(7, 6).check("a method", 6)
    with pytest.raises(InputError, match=r"total_images 70, but max_steps x batch_size = 69: set"):
        Stages(7, 70).check("a method", 69)
    with pytest.raises(InputError, match=r"objective.total_images 0, but .* = 64: set --objective.total-images 64"):
        Stages(7, 0).check("a method", 64)
