"""Readers give nnunetv2's arrays and spacings to the last bit, and the same reader is chosen for a file.

Where nnunetv2 cannot read a file at all, nothing is compared: 4D files by nibabel, for one, are read here.
"""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image as PillowImage

from segplug.errors import DataError
from segplug.kernel import Kernel
from segplug_builtin.readers import first_that_reads

pytestmark = pytest.mark.parity

PROGRAM = """
import contextlib, io, json, os, sys
for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, sys.argv[1])
import numpy as np
from nnunetv2.imageio import reader_writer_registry as registry
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIOWithReorient

if __name__ == "__main__":
    readers = {r.__name__: r for r in [*registry.LIST_OF_IO_CLASSES, SimpleITKIOWithReorient]}
    answers = []
    for number, (file, reader) in enumerate(json.loads(sys.stdin.read())):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            ending = "." + os.path.basename(file).split(".", 1)[1]
            try:
                chosen = registry.determine_reader_writer_from_file_ending(ending, file).__name__
            except RuntimeError:
                chosen = None
            try:
                array, properties = readers[reader]().read_images((file,))
            except Exception:
                answers.append({"chosen": chosen, "spacing": None})
                continue
        np.save(f"{sys.argv[1]}/{number}.npy", array)
        answers.append({"chosen": chosen, "spacing": [float(s) for s in properties["spacing"]]})
    with open(f"{sys.argv[1]}/answers.json", "w") as file:
        json.dump(answers, file)
"""

NIFTI = ("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient")
ITK = NIFTI[:2]
TIFF = ("NaturalImage2DIO", "Tiff3DIO")
NATURAL = TIFF[:1]
OBLIQUE = (0.36, 0.48, -0.8, -0.8, 0.6, 0.0, 0.48, 0.64, 0.6)


def itk_files(folder: Path, random: np.random.Generator) -> Iterator[tuple[Path, tuple[str, ...]]]:
    def write(name: str, array: Any, spacing: Any, origin: Any, direction: Any) -> Path:
        image = sitk.GetImageFromArray(array, isVector=False)
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        image.SetDirection(np.ravel(direction).tolist())
        sitk.WriteImage(image, str(folder / name), True)
        return folder / name

    volume = ((1.3, 0.7, 2.2), (-10.0, 20.0, 3.3))
    for kind in ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"):
        array = (random.random((5, 6, 7)) * 120).astype(kind)
        for ending, readers in ((".nii.gz", NIFTI), (".nii", NIFTI), (".nrrd", ITK), (".mha", ITK)):
            yield write(f"{kind}_0000{ending}", array, *volume, OBLIQUE), readers
    yield write("gipl_0000.gipl", array.astype("i2"), *volume, np.eye(3)), ITK[:1]
    for number, order in enumerate([(0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (2, 1, 0)]):
        direction = np.eye(3)[list(order)] * np.array([1, -1, 1] if number % 2 else [-1, 1, -1])
        yield write(f"turned{number}_0000.nii.gz", random.random((4, 5, 6)), *volume, direction), NIFTI
    yield write("flat_0000.nii.gz", random.random((5, 6)), (0.5, 0.25), (3, 4), np.eye(2)), ITK[:1]
    yield write("flat_0000.nrrd", random.random((5, 6)), (0.5, 0.25), (3, 4), [[0.6, -0.8], [0.8, 0.6]]), ITK[:1]
    yield write("slice_0000.nii.gz", random.random((1, 5, 6)), (0.5, 0.25, 5), (3, 4, 5), np.eye(3)), NIFTI
    yield write("deep_0000.nii.gz", random.random((3, 4, 5, 6)), (0.5, 0.25, 2, 1), (3, 4, 5, 0), np.eye(4)), ITK[:1]


def scaled_files(folder: Path, random: np.random.Generator) -> Iterator[tuple[Path, tuple[str, ...]]]:
    scales = [(2.5, -1000), (1e-3, 7), (1, 3), (1 / 3, 0.1), (0, 5), (np.nan, np.nan), (1, 0), (-1, 3)]
    for number, (slope, intercept) in enumerate(scales):
        for order, kind in (("<", "i2"), (">", "i4"), ("<", "f8")):
            header = nibabel.Nifti1Header(endianness=order)
            header.set_data_dtype(np.dtype(order + kind))
            header.set_data_shape((6, 5, 4))
            header["pixdim"][1:4] = 1.1, 2.2, 3.3
            header["scl_slope"], header["scl_inter"], header["vox_offset"] = slope, intercept, 352
            voxels = (random.random((6, 5, 4)) * 120).astype(order + kind).tobytes()
            path = folder / f"scaled{number}_{kind}_0000.nii.gz"
            path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + voxels))
            yield path, NIFTI


def pictures(folder: Path, random: np.random.Generator) -> Iterator[tuple[Path, tuple[str, ...]]]:
    for number, shape in enumerate([(20, 30, 40), (3, 30, 40), (4, 30, 40), (30, 40, 3), (30, 40), (2, 3, 30, 40)]):
        for kind in ("u1", "u2", "f4"):
            for compression in (None, "zlib"):
                path = folder / f"stack{number}_{kind}_{compression}_0000.tif"
                colours = "rgb" if shape[-1] == 3 else "minisblack"
                tifffile.imwrite(
                    path, (random.random(shape) * 250).astype(kind), compression=compression, photometric=colours
                )
                yield path, TIFF
    (folder / "stack0_u1_None.json").write_text(json.dumps({"spacing": [50, 4.6, 4.6]}))
    grey = random.integers(0, 255, (30, 40)).astype(np.uint8)
    colour = random.integers(0, 255, (30, 40, 4)).astype(np.uint8)
    made = {
        "grey.png": PillowImage.fromarray(grey),
        "grey.bmp": PillowImage.fromarray(grey),
        "two.png": PillowImage.fromarray(grey > 100),
        "two.bmp": PillowImage.fromarray(grey > 100),
        "16.png": PillowImage.fromarray(grey.astype(np.uint16) * 257),
        "rgb.png": PillowImage.fromarray(colour[..., :3].copy()),
        "rgb.bmp": PillowImage.fromarray(colour[..., :3].copy()),
        "rgba.png": PillowImage.fromarray(colour),
        "palette.png": PillowImage.fromarray(colour[..., :3].copy()).quantize(16),
        "palette.bmp": PillowImage.fromarray(colour[..., :3].copy()).quantize(16),
        "alpha.png": PillowImage.fromarray(colour).quantize(16),
        "lzw.tif": PillowImage.fromarray(grey),
    }
    for name, image in made.items():
        path = folder / name.replace(".", "_0000.")
        image.save(path, **({"compression": "tiff_lzw"} if name == "lzw.tif" else {}))
        yield path, TIFF if name == "lzw.tif" else NATURAL


def test_readers_agree_to_the_last_bit(peer: Path, parity: Callable[..., None], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sources = (itk_files, scaled_files, pictures)
    jobs = [(str(path), reader) for make in sources for path, readers in make(tmp_path, random) for reader in readers]
    answers_folder = tmp_path / "answers"
    answers_folder.mkdir()
    subprocess.run([str(peer), "-c", PROGRAM, str(answers_folder)], input=json.dumps(jobs), text=True, check=True)
    answers = json.loads((answers_folder / "answers.json").read_text())
    registry = Kernel(discover=False).registry
    compared = 0
    for number, ((file, reader), answer) in enumerate(zip(jobs, answers, strict=True)):
        told = f"{Path(file).name} by {reader}"
        assert first_that_reads(Path(file)) == answer["chosen"], told
        if answer["spacing"] is None:
            continue
        try:
            image = registry.build("readers", reader)([Path(file)])
        except DataError as error:
            pytest.fail(f"{told}: {error}")
        np.testing.assert_array_equal(image.array, np.load(answers_folder / f"{number}.npy"), err_msg=told, strict=True)
        assert list(image.spacing) == answer["spacing"], told
        compared += 1
    assert compared > 300
    parity("files of all formats: arrays or spacings that differ", compared, 0, 0, section="Reading")
    parity("readers chosen for a file: that differ", len(jobs), 0, 0, section="Reading")
