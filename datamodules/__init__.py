"""Where images, labels and boxes come from, and how they become batches.

Nothing here imports ``lightning_modules``.
"""

from datamodules.batch import Original
from datamodules.class_indices import ClassIndexDataModule
from datamodules.errors import DataError, DecodingError
from datamodules.folder import FolderSource, list_folder
from datamodules.image_sources import ImageSourcesDataModule
from datamodules.images.decode import decode_image
from datamodules.labels import LabelFile, label_file
from datamodules.modules import ImageFolderDataModule
from datamodules.packing import pack_decoded, pack_folder
from datamodules.pictures import write_pictures
from datamodules.preprocess import Preprocess
from datamodules.shapes import SHAPE_NAMES, ShapesDataModule, write_shapes
from datamodules.source import ListingOptions, Source

__all__ = [
    "SHAPE_NAMES",
    "ClassIndexDataModule",
    "DataError",
    "DecodingError",
    "FolderSource",
    "ImageFolderDataModule",
    "ImageSourcesDataModule",
    "LabelFile",
    "ListingOptions",
    "Original",
    "Preprocess",
    "ShapesDataModule",
    "Source",
    "decode_image",
    "label_file",
    "list_folder",
    "pack_decoded",
    "pack_folder",
    "write_pictures",
    "write_shapes",
]
