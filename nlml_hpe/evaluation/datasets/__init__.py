"""Labelled data sets, read as they are distributed; lists of their faces and splits of them."""

from nlml_hpe.evaluation.datasets.layouts import LAYOUTS, read_dataset, recognised_layout
from nlml_hpe.evaluation.datasets.lists import (
    SPLITS,
    bare_name,
    chosen_by_list,
    each_once,
    meant,
    read_list,
    split,
    with_slashes,
    write_lists,
)
from nlml_hpe.evaluation.datasets.samples import Dataset, DatasetError, Sample

__all__ = [
    "LAYOUTS",
    "SPLITS",
    "Dataset",
    "DatasetError",
    "Sample",
    "bare_name",
    "chosen_by_list",
    "each_once",
    "meant",
    "read_dataset",
    "read_list",
    "recognised_layout",
    "split",
    "with_slashes",
    "write_lists",
]
