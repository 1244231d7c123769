"""nnunetv2's converters: SOURCE of the Decathlon as data set 5, and one of nnU-Net v1 as Dataset107_Old.

    python peer_convert.py MSD_FOLDER V1_FOLDER

with nnUNet_raw set.
"""

import sys

from nnunetv2.dataset_conversion.convert_MSD_dataset import convert_msd_dataset
from nnunetv2.dataset_conversion.convert_raw_dataset_from_old_nnunet_format import convert

if __name__ == "__main__":
    convert_msd_dataset(sys.argv[1], 5, num_processes=1)
    convert(sys.argv[2], "Dataset107_Old")
