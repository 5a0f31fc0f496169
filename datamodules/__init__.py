"""Where images, labels and boxes come from, and how they become batches.

Nothing here imports ``lightning_modules``.
"""

from datamodules.batch import Original
from datamodules.class_indices import ClassIndexDataModule
from datamodules.errors import DataError
from datamodules.image_folder import ImageFolderDataModule
from datamodules.image_sources import ImageSourcesDataModule
from datamodules.pictures import write_pictures
from datamodules.reading.decoding import DecodingError, Preprocess, decode_image
from datamodules.shapes import SHAPE_NAMES, ShapesDataModule, write_shapes
from datamodules.sources.decoded_packing import pack_decoded
from datamodules.sources.folder import FolderListing, list_folder
from datamodules.sources.label_files import LabelFile, label_file
from datamodules.sources.listing import Listing
from datamodules.sources.packing import pack_folder

__all__ = [
    "SHAPE_NAMES",
    "ClassIndexDataModule",
    "DataError",
    "DecodingError",
    "FolderListing",
    "ImageFolderDataModule",
    "ImageSourcesDataModule",
    "LabelFile",
    "Listing",
    "Original",
    "Preprocess",
    "ShapesDataModule",
    "decode_image",
    "label_file",
    "list_folder",
    "pack_decoded",
    "pack_folder",
    "write_pictures",
    "write_shapes",
]
