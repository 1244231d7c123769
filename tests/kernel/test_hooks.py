"""Every hook, by the example that stands in the hook reference: it is registered, called and does its work."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from segplug import ComponentRef
from segplug.errors import DataError, WrongReferenceError
from segplug.kernel import Kernel
from segplug.model import (
    Budget,
    ChannelStatistics,
    Choice,
    DatasetDescription,
    EpochReport,
    Evaluation,
    Fingerprint,
    Geometry,
    Image,
    Labels,
    LabelSet,
    Prediction,
)
from segplug.protocols import (
    AugmentationContext,
    Batch,
    Comparison,
    PredictionSettings,
    PreprocessedCase,
    recognises,
)

EXAMPLES = Path(__file__).resolve().parents[2] / "core" / "segplug" / "testing" / "examples"
LABELS = LabelSet({"background": 0, "liver": 1, "tumour": 2})
CUBE = Geometry((1.0, 1.0, 1.0))


@pytest.fixture
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """The built-ins and the example of the hook that the test is named after."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    name = request.function.__name__.removeprefix("test_hook_")
    kernel = Kernel(discover=False)
    record = kernel.register(import_module(f"example_{name}"), "example")
    assert record.hooks == (f"segplug_{name}",)
    return kernel


@pytest.fixture
def build(kernel: Kernel, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Build a component of the kind that the test is named after."""
    kind = request.function.__name__.removeprefix("test_hook_")

    def make(name: str, options: dict[str, Any] | None = None, **offered: Any) -> Any:
        assert kernel.registry.find(kind, name).plugin.name == "example"
        return kernel.registry.build(kind, ComponentRef(name, options or {}), **offered)

    return make


# --- providers -----------------------------------------------------------------------------------------------------


def test_hook_readers(build: Callable[..., Any], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4), np.int16))
    image = build("npy")([tmp_path / "a.npy"] * 2)
    assert image.array.shape == (2, 2, 3, 4)
    assert image.array.dtype == np.float32
    (tmp_path / "b.npy").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"b\.npy"):
        build("npy")([tmp_path / "b.npy"])


def test_hook_writers(build: Callable[..., Any], tmp_path: Path) -> None:
    labels = Labels(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), CUBE)
    build("npy")(tmp_path / "a.npy", labels)
    assert np.array_equal(np.load(tmp_path / "a.npy"), labels.array)


def test_hook_normalizers(build: Callable[..., Any]) -> None:
    channel = np.arange(101, dtype=np.float32).reshape(1, 1, 101)
    scaled = build("robust", {"percent": 10.0})(channel, channel > 0, None)
    assert scaled.dtype == np.float32
    assert np.allclose(scaled[0, 0, [10, 90]], [0, 1], atol=0.02)


def test_hook_resamplers(build: Callable[..., Any]) -> None:
    array = np.arange(8, dtype=np.int16).reshape(1, 2, 2, 2)
    bigger = build("nearest", {"is_seg": True})(array, (4, 2, 2), (2, 1, 1), (1, 1, 1))
    assert np.array_equal(bigger, array.repeat(2, axis=1))


def test_hook_planners(build: Callable[..., Any], kernel: Kernel) -> None:
    statistics = ChannelStatistics(0.0, 0.0, 1.0, -1.0, 1.0, 1.0, -1.0)
    fingerprint = Fingerprint(((1.0, 1.0, 2.0), (1.0, 1.0, 1.0)), ((40, 50, 60), (30, 50, 60)), (statistics,), 1.0)
    dataset = DatasetDescription("Dataset999_X", ("CT",), LABELS, ".nii.gz", 2, "SimpleITKIO")
    plan = build("isotropic")(fingerprint, dataset, Budget())
    assert plan.original_median_shape == (35, 50, 60)
    configuration = plan.configurations["3d_fullres"]
    assert configuration.spacing == (1.0, 1.0, 1.0)
    assert plan.plans_name == "isotropicPlans"
    kernel.registry.find("architectures", configuration.architecture.name)
    kernel.registry.find("resamplers", configuration.resample_data.name)


def test_hook_architectures(build: Callable[..., Any]) -> None:
    torch = pytest.importorskip("torch")
    for dimensions, shape in ((2, (8, 9)), (3, (4, 5, 6))):
        make = build("two_convolutions", {"features": 4, "dimensions": dimensions})
        network = make(2, 3, deep_supervision=True)
        assert network(torch.zeros(1, 2, *shape)).shape == (1, 3, *shape)


def test_hook_losses(build: Callable[..., Any]) -> None:
    torch = pytest.importorskip("torch")
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    target = torch.randint(0, 3, (2, 1, 4, 4), generator=torch.Generator().manual_seed(2))
    loss = build("focal", {"gamma": 0.0}, batch_dice=True, regions=False, classes=3)(logits, target)
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, target[:, 0]).item(), rel=1e-5)
    loss.backward()
    assert torch.isfinite(logits.grad).all()


def test_hook_augmentations(build: Callable[..., Any]) -> None:
    torch = pytest.importorskip("torch")
    augmentation = build("brightness", {"spread": 0.5}, context=AugmentationContext((4, 4), 1))
    drawn = [augmentation.draw(np.random.default_rng(seed)) for seed in range(3)]
    assert drawn[0] == augmentation.draw(np.random.default_rng(0))
    batch = Batch(torch.ones(3, 1, 4, 4), torch.zeros(3, 1, 4, 4, dtype=torch.int16))
    out = augmentation(batch, drawn)
    assert out.data.amax((1, 2, 3)).tolist() == pytest.approx([p["factor"] for p in drawn])
    calm = build("brightness", {}, context=AugmentationContext((4, 4), 1, validation=True))
    assert calm.draw(np.random.default_rng(0)) == {"factor": 1.0}


def test_hook_optimizers(build: Callable[..., Any]) -> None:
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = build("rmsprop", {"alpha": 0.5})([weight], lr=0.1, weight_decay=0.0)
    weight.sum().backward()
    optimizer.step()
    assert weight.max() < 1
    assert optimizer.defaults["alpha"] == 0.5


def test_hook_schedules(build: Callable[..., Any]) -> None:
    schedule = build("linear")
    values = [schedule(1.0, epoch=e, epochs=2, iteration=i, iterations=2) for e in range(2) for i in range(2)]
    assert values == pytest.approx([1, 0.75, 0.5, 0.25])


def test_hook_splitters(build: Callable[..., Any]) -> None:
    cases = [f"patient{n:02d}_{scan}" for n in range(7) for scan in ("ED", "ES")]
    folds = build("by_patient", {"folds": 3})(cases)
    assert sorted(case for fold in folds for case in fold.val) == cases
    for fold in folds:
        assert not {c[:9] for c in fold.train} & {c[:9] for c in fold.val}


def test_hook_trainers(build: Callable[..., Any]) -> None:
    torch = pytest.importorskip("torch")
    trainer = dataclasses.replace(build("plain_loop"), epochs=2, iterations_per_epoch=3, lr=0.1)
    network = torch.nn.Conv2d(1, 1, 1)
    before = network.weight.item()
    saved = {}

    @contextmanager
    def batches(request: Any) -> Iterator[Iterator[Batch]]:
        assert (request.batch_size, request.epochs, request.iterations) == (2, 2, 3)
        yield (Batch(torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)) for _ in range(6))

    task = SimpleNamespace(
        network=network,
        configuration=SimpleNamespace(batch_size=2),
        loss=lambda ref, deep_supervision: lambda output, target: (output - target).square().mean(),
        build=lambda kind, ref: lambda parameters, lr, weight_decay: torch.optim.SGD(parameters, lr=lr),
        batches=batches,
        save=lambda which, state, wait: saved.update({which: state}),
    )
    trainer.train(task)
    assert network.weight.item() != before
    assert saved["final"]["current_epoch"] == 2


def test_hook_postprocessors(build: Callable[..., Any]) -> None:
    reference = np.zeros((4, 4, 4), np.uint8)
    reference[:2] = 1
    prediction = np.zeros_like(reference)
    prediction[0, 0, 0], prediction[3] = 1, 2
    pair = Labels(reference, CUBE), Labels(prediction, CUBE)
    postprocessor = build("smallest_size")
    decision = json.loads(json.dumps(postprocessor.fit([pair], LABELS)))
    cleaned = postprocessor.apply(pair[1], decision, LABELS)
    assert set(np.unique(cleaned.array)) == {0, 2}
    assert prediction[0, 0, 0] == 1


def test_hook_metrics(build: Callable[..., Any]) -> None:
    metric = build("volume_difference")
    empty = np.zeros((1, 2, 2), np.uint8)
    assert metric(Comparison(5, 30, 10, 0, empty, empty, (1,), (5.0, 10.0, 2.0))) == pytest.approx(2.0)
    assert math.isnan(metric(Comparison(0, 0, 0, 4, empty, empty, (1,), (1.0, 1.0, 1.0))))


def test_hook_predictors(build: Callable[..., Any]) -> None:
    torch = pytest.importorskip("torch")
    image = Image(np.ones((1, 2, 3, 4), np.float32), CUBE)

    def run(image: Image, forward: Any, device: Any, previous: Any = None) -> Prediction:
        values = sum(f(torch.from_numpy(image.array)[None]) for f in forward)
        return Prediction(Labels(values[0, 0].numpy().astype(np.uint8), image.geometry))

    model = SimpleNamespace(networks=lambda device: [torch.nn.Identity(), torch.nn.Identity()])
    predictor = build("plain", model=model, settings=PredictionSettings(), pipeline=SimpleNamespace(run=run))
    assert (predictor.predict(image).labels.array == 2).all()


def test_hook_stores(build: Callable[..., Any], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    case = PreprocessedCase(
        random.normal(size=(2, 4, 5, 6)).astype(np.float32),
        random.integers(-1, 3, (1, 4, 5, 6)).astype(np.int16),
        {"spacing": [1.0, 1.0, 2.0]},
        {1: np.array([[0, 1, 2]], np.int32), (1, 2): np.array([[3, 4, 5], [1, 1, 1]], np.int32)},
    )
    store = build("npz")(tmp_path / "store", (2, 2, 2))
    assert store.made_from("a") is None
    store.write("a", case, {"hash": "x"})
    assert store.cases() == ["a"]
    assert store.made_from("a") == {"hash": "x"}
    stored = store.open("a")
    assert (stored.shape, stored.channels, stored.properties) == ((4, 5, 6), 2, case.properties)
    assert {k: v.tolist() for k, v in stored.locations.items()} == {k: v.tolist() for k, v in case.locations.items()}
    data, target = stored.read((1, 0, 2), (3, 5, 4))
    assert np.array_equal(data, case.data[:, 1:3, 0:5, 2:4])
    assert np.array_equal(target, case.target[:, 1:3, 0:5, 2:4])
    with pytest.raises(DataError, match="no case 'b'"):
        store.open("b")


def invert(value: float) -> float:
    return 1 / value


def test_hook_executors(build: Callable[..., Any]) -> None:
    executor = build("threads", workers=2, unknown="is not asked for")
    outcomes = {o.index: o for o in executor.map(invert, [1.0, 0.0, 4.0])}
    executor.close()
    assert (outcomes[0].value, outcomes[2].value) == (1.0, 0.25)
    assert isinstance(outcomes[1].error, ZeroDivisionError)


def test_hook_converters(build: Callable[..., Any], tmp_path: Path) -> None:
    for folder in ("scans", "masks"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.nii.gz").write_text(folder)
    converter = build("scans")
    assert recognises(converter, tmp_path) == "folders named scans and masks"
    assert recognises(converter, tmp_path / "scans") == ""
    conversion = build("scans", {"channel": ["CT"]})(tmp_path)
    assert [(f.sources[0].parent.name, f.targets) for f in conversion.files] == [
        ("scans", ("imagesTr/a_0000.nii.gz",)),
        ("masks", ("labelsTr/a.nii.gz",)),
    ]
    assert conversion.description["channel_names"] == {"0": "CT"}
    (tmp_path / "masks" / "a.nii.gz").unlink()
    with pytest.raises(DataError, match="has no mask"):
        build("scans")(tmp_path)


# --- choices -------------------------------------------------------------------------------------------------------


def test_hook_choose_reader(kernel: Kernel) -> None:
    assert kernel.choose("segplug_choose_reader", path=Path("case_0000.npy")) == "npy"


def test_hook_choose_writer(kernel: Kernel) -> None:
    assert kernel.choose("segplug_choose_writer", path=Path("case.npy")) == "npy"


def test_hook_choose_normalizer(kernel: Kernel) -> None:
    assert kernel.choose("segplug_choose_normalizer", channel_name="PET") == "robust"
    assert kernel.choose("segplug_choose_normalizer", channel_name="ct") == "CTNormalization"


def test_hook_choose_trainer(kernel: Kernel) -> None:
    plan = SimpleNamespace(configurations={"2d": SimpleNamespace(dimensions=2), "3d": SimpleNamespace(dimensions=3)})
    assert kernel.choose("segplug_choose_trainer", plan=plan, configuration="2d") == "plain_loop"
    assert kernel.choose("segplug_choose_trainer", plan=plan, configuration="3d") == "nnunet"


# --- events --------------------------------------------------------------------------------------------------------


def test_hook_stage_started(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    kernel.emit("segplug_stage_started", stage="preprocess", subject="Dataset004_X", total=3)
    assert capsys.readouterr().err == "preprocess of Dataset004_X starts, 3 steps\n"


def test_hook_stage_progress(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    for done in range(1, 21):
        kernel.emit("segplug_stage_progress", stage="preprocess", item=f"case_{done}", done=done, total=20)
    assert capsys.readouterr().err.splitlines() == [f"preprocess: {10 * n} %" for n in range(1, 11)]


def test_hook_stage_finished(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    kernel.emit("segplug_stage_finished", stage="plan", subject="Dataset004_X", seconds=1.4, error="no cases")
    assert capsys.readouterr().err == "plan of Dataset004_X: no cases after 1 s\n"


def test_hook_epoch_finished(kernel: Kernel, tmp_path: Path) -> None:
    for epoch in range(2):
        report = EpochReport(epoch, 2, 0.5, 0.25, (0.8,), 0.8, 0.8, 0.01, 1.0)
        kernel.emit("segplug_epoch_finished", folder=tmp_path, report=report)
    assert (tmp_path / "losses.csv").read_text() == "0,0.5,0.25\n1,0.5,0.25\n"


def test_hook_checkpoint_written(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "checkpoint_latest.pth").write_bytes(b"weights")
    kernel.emit("segplug_checkpoint_written", path=tmp_path / "checkpoint_latest.pth", epoch=7)
    assert (tmp_path / "checkpoint_latest_epoch_0007.pth").read_bytes() == b"weights"


def test_hook_case_predicted(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    labels = Labels(np.array([[[0, 1, 1, 0]]], np.uint8), CUBE)
    kernel.emit("segplug_case_predicted", case="a", prediction=Prediction(labels), path=None)
    assert capsys.readouterr().err == "a: 50.0% foreground, in memory\n"


def test_hook_configured(kernel: Kernel) -> None:
    kernel.configure({"example": {"experiment": "liver"}})
    assert import_module("example_configured").OPTIONS == {"experiment": "liver"}
    with pytest.raises(WrongReferenceError, match=r"refuses.*no option name; there is: experiment"):
        kernel.configure({"example": {"name": 1}})
    with pytest.raises(WrongReferenceError, match=r"takes no options\. Plugins with options: example"):
        kernel.configure({"builtin": {}})
    with pytest.raises(WrongReferenceError, match="no such plugin is installed"):
        kernel.configure({"absent": {}})


def test_hook_training_started(kernel: Kernel, tmp_path: Path) -> None:
    started = SimpleNamespace(folder=tmp_path, trainer="builtin:nnunet", seed=3, versions={"segplug": "1"})
    kernel.emit("segplug_training_started", training=started)
    told = json.loads((tmp_path / "started.json").read_text())
    assert told == {"trainer": "builtin:nnunet", "seed": 3, "versions": {"segplug": "1"}}


def test_hook_training_finished(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    kernel.emit("segplug_training_finished", folder=Path("model/fold_0"), error="")
    kernel.emit("segplug_training_finished", folder=Path("model/fold_1"), error="disk full")
    assert capsys.readouterr().err == "training in fold_0: done\ntraining in fold_1: disk full\n"


def test_hook_evaluated(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = Evaluation((), {1: {"Dice": 0.5}, (1, 2): {"Dice": 0.75}}, {"Dice": 0.625})
    kernel.emit("segplug_evaluated", folder=Path("validation"), evaluation=evaluation)
    assert capsys.readouterr().err == "validation: 1: 0.500, (1, 2): 0.750\n"


def test_hook_model_chosen(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    choice = Choice("Dataset004_X", (Path("a"), Path("b")), (0,), 0.8, 0.8, Path("postprocessing.json"))
    kernel.emit("segplug_model_chosen", choice=choice, scores={"a": 0.7, "ensemble": 0.8})
    assert capsys.readouterr().err == "a: 0.700\nensemble: 0.800\nchosen: a + b\n"
