"""PNG files, under the names that `files` holds now."""

from .files import read_metadata, save_png

__all__ = ["read_metadata", "save_png"]
