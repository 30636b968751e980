"""Named recipes: `shortcut train PRESET`; one a page, which says what it is, what it costs and what to expect."""

from shortcut_models import catalogue
from shortcut_models.config import Config


def get_preset(name: str) -> Config:
    """The recipe of that name; raises InputError listing the names."""
    return catalogue.find("preset", catalogue.PRESETS, name)
