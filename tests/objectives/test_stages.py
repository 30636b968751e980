from fractions import Fraction

import jax
import numpy as np
import pytest

from shortcut_models.errors import InputError
from shortcut_models.objectives.flow_matching import FlowMatching
from shortcut_models.objectives.stages import Staged, Stages


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


class Three(Staged, FlowMatching):
    """A method with three stages."""

    @property
    def num_stages(self) -> int:
        return 3


def test_stages_follow_the_length_of_the_training_unless_they_are_set() -> None:
    assert Three().for_length(30).stages.starts == (10, 20)
    assert Three(total_images=9).for_length(30).stages.starts == (3, 6)


def test_a_training_too_short_for_its_stages_is_refused_with_the_arithmetic() -> None:
    Three().check(1, 3)
    Three(total_images=70).check(1, 70)
    Three(total_images=70).check(1, 700)
    with pytest.raises(InputError, match="3 stages of at least 1 image, but max_steps x batch_size = 2: train longer"):
        Three().check(1, 2)
    with pytest.raises(InputError, match=r"total_images 70, but max_steps x batch_size = 69: set .*total-images 69"):
        Three(total_images=70).check(1, 69)
    with pytest.raises(InputError, match=r"3 stages over objective.total_images 2, but"):
        Three(total_images=2).check(1, 64)
    Three().check(2**12, 2**32 - 1)
    with pytest.raises(InputError, match=r"max_steps x batch_size = 4294967296, but a method in stages counts at most"):
        Three(total_images=70).check(2**12, 2**32)
    with pytest.raises(InputError, match=r"objective.total_images is -1, but must be at least 0"):
        Three(total_images=-1)
