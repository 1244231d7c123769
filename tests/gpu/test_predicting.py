"""Sliding window and resampling on a device that is waited for only when labels are taken from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segplug.model import LabelSet
from segplug.runtime import sliding_window
from segplug.runtime.compute_settings import prediction_compute, reproducible_kernels
from segplug.runtime.slab_resampling import SlabResampling
from segplug.runtime.sliding_window import Window, slide, sums_in_memory
from segplug.runtime.streamed_export import Placement, StreamedExport

CLASSES, SHAPE, NEW_SHAPE = 3, (12, 22, 26), (15, 30, 20)
WINDOW = Window.plan(SHAPE, (8, 8, 8), 0.5)


def network(device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv3d(2, CLASSES, 3, padding=1).to(device)


def matrices() -> list[Any]:
    """Linear interpolation to the new shape, along the window's axes."""
    found = []
    for axis in WINDOW.order:
        places = np.linspace(0, SHAPE[axis] - 1, NEW_SHAPE[axis])
        low = np.minimum(places.astype(int), SHAPE[axis] - 2)
        matrix = np.zeros((NEW_SHAPE[axis], SHAPE[axis]), np.float32)
        rows = np.arange(NEW_SHAPE[axis])
        matrix[rows, low], matrix[rows, low + 1] = 1 - (places - low), places - low
        found.append(matrix)
    return found


@pytest.fixture
def image() -> Tensor:
    return torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("room", [True, False], ids=["image on the device", "image beside it"])
def test_nothing_waits_between_tiles(
    image: Tensor,
    device: torch.device,
    batch_size: int,
    room: bool,
    forbid_waiting: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sliding_window, "_check_finite", lambda *_: None)  # once a slab it may
    monkeypatch.setattr(sliding_window, "free_memory", lambda _: 1e12 if room else 8.0 * image.numel())
    monkeypatch.setattr(sliding_window, "SUMS_SHARE", 1e9)
    resampling = SlabResampling(matrices())
    seen = []

    def forward(x: Tensor) -> Tensor:
        seen.append(x.shape)
        assert x.device.type == device.type
        return model(x)

    with torch.inference_mode():
        model = network(device)
        model(torch.zeros(1, 2, 8, 8, 8, device=device))
        with forbid_waiting(device.type) as mode:
            options: dict[str, Any] = {"classes": CLASSES, "device": device, "mirror_axes": (0, 1, 2)}
            for slab in slide(image, [forward], WINDOW, batch_size=batch_size, **options):
                pieces = [piece for _, piece in resampling.push(slab.logits)]
                assert {piece.device.type for piece in pieces} == {device.type}
    assert mode.sent
    assert max(shape[0] for shape in seen) == batch_size


def test_sums_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (400, 1000))
    with pytest.warns(UserWarning, match=r"overlapping tiles take 0\.0 GB, and cuda:0 has 0\.0 GB left"):
        sums = sums_in_memory((2, 3, 4, 5), torch.device("cuda:0"))
    assert sums.values.device.type == "cpu"
    assert sums_in_memory((2, 3, 4, 5), torch.device("meta")).values.device.type == "meta"


def test_kernels_are_chosen_for_a_gpu_and_left_as_they_were() -> None:
    cudnn, cuda = torch.backends.cudnn, torch.device("cuda")
    before = cudnn.benchmark, cudnn.deterministic, torch.are_deterministic_algorithms_enabled()
    assert before == (False, False, False)
    with prediction_compute(cuda):
        assert cudnn.benchmark
        with reproducible_kernels(cuda, wanted=True):
            assert (cudnn.benchmark, cudnn.deterministic) == (False, True)
            assert torch.are_deterministic_algorithms_enabled()
        with reproducible_kernels(cuda, wanted=False):
            assert (cudnn.benchmark, cudnn.deterministic) == (True, False)
    with prediction_compute(torch.device("cpu")), reproducible_kernels(torch.device("cpu"), wanted=True):
        assert not cudnn.benchmark
    assert (cudnn.benchmark, cudnn.deterministic, torch.are_deterministic_algorithms_enabled()) == before


@pytest.mark.gpu
def test_labels_are_those_of_a_cpu(image: Tensor) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    labels = LabelSet({"background": 0, "a": 1, "b": 2})
    found = []
    for device, beside in ((torch.device("cpu"), False), (torch.device("cuda"), False), (torch.device("cuda"), True)):
        axes = [matrices()[WINDOW.order.index(axis)] for axis in range(3)]
        export = StreamedExport(WINDOW.order, Placement.whole(NEW_SHAPE), labels, matrices=axes)
        model = network(device)
        options: dict[str, Any] = {"classes": CLASSES, "device": device, "mirror_axes": (0, 1, 2), "batch_size": 16}
        if beside:  # where the device has no room for them
            options["sums_in"] = lambda shape, _: sums_in_memory(shape, torch.device("cpu"))
        for slab in slide(image, [model], WINDOW, **options):
            export.push(slab)
        found.append(export.result())
    assert all((found[0] == other).mean() > 0.999 for other in found[1:])
