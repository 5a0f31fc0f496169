"""Files that are either whole or not there, and errors that name them; as for what is packed."""

from datamodules.writing import naming, written_whole

__all__ = ["naming", "written_whole"]
