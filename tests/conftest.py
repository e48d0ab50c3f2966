"""What several test files share: a tiny prepared scene, decoders with batch statistics worth the name, an
object store, and folders that one test process makes for all."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# Before NumPy and torch are imported: files run beside each other, and threads that spin would starve them.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import pytest
import torch

from mipoison.models.inversion import InversionConfig, InversionNet
from mipoison.randomness import generator
from mipoison.scene import Scene, SceneConfig, prepare
from mipoison.storage.artifacts import ArtifactStore
from mipoison.storage.files import Storage
from mipoison.training import seeded
from tests.once import Once
from tests.reportless import without_report

torch.set_num_threads(1)  # the number of threads changes the order of sums

CPU = torch.device("cpu")

MakeDecoder = Callable[..., InversionNet]

FIRST = (
    "test_readme.py", "test_contract.py", "test_mipoison_example.py", "test_mixtures.py", "test_reading.py",
    "test_readers_run_nothing.py", "test_confirmation.py",
)  # fmt: skip
"""Files that take long, beside those that start Ray."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest files first: with one of them last, the other processes would wait for it."""
    ray = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: (item.path not in ray, item.path.name not in FIRST))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    return Once(tmp_path_factory)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies of this process end without tables, figures and page, which take longer than small studies."""
    without_report(monkeypatch)


WORKED_EXAMPLE = "python study/examples/protect_torchvision.py --out protected-digits"
"""The pages' command, word for word (``tests/test_readme.py``)."""


@pytest.fixture(scope="session")
def worked_example(once: Once) -> Path:
    """A folder with what :data:`WORKED_EXAMPLE` leaves and, in ``stdout`` and ``stderr``, what it says."""
    root = Path(__file__).parents[1]

    def make(folder: Path) -> None:
        _, script, *more = WORKED_EXAMPLE.split()
        run = subprocess.run(
            [sys.executable, str(root / script), *more],
            cwd=folder, env=os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(root)},
            capture_output=True, text=True, timeout=570,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        (folder / "stdout").write_text(run.stdout)
        (folder / "stderr").write_text(run.stderr)

    return once("example", make)


@pytest.fixture(scope="session")
def tiny_config() -> SceneConfig:
    """A scene that trains in a second: 100 images a side, 150 steps of the victim, 60 of a decoder."""
    return SceneConfig(
        limit=100,
        victim_width=8,
        victim_hidden=16,
        victim_steps=150,
        victim_batch=32,
        decoder_width=4,
        decoder_steps=60,
        decoder_batch=32,
        decoder_lr=1e-2,
    )


@pytest.fixture(scope="session")
def tiny_store(tiny_config: SceneConfig, once: Once) -> ArtifactStore:
    """A store that holds the parts of the tiny scene."""
    place = once("store", lambda root: prepare(tiny_config, ArtifactStore(Storage(root)), device=CPU))
    return ArtifactStore(Storage(place))


@pytest.fixture(scope="session")
def tiny_scene(tiny_config: SceneConfig, tiny_store: ArtifactStore) -> Scene:
    return prepare(tiny_config, tiny_store, device=CPU)


@pytest.fixture(scope="session")
def make_decoder() -> MakeDecoder:
    """A frozen decoder; its batch-norm layers have random statistics and affine maps, not the identity."""

    def make(
        n_classes: int = 4,
        size: int = 16,
        features: str = "log",
        extra_blocks: int = 0,
        width: int = 2,
        seed: int = 0,
    ) -> InversionNet:
        rng = generator(seed, "test decoder")
        with seeded(rng, CPU):
            config = InversionConfig(features=features, extra_blocks=extra_blocks, width=width)  # type: ignore[arg-type]
            net = config.make((1, size, size), n_classes)
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                shape = layer.weight.shape
                layer.running_mean = 0.3 * torch.randn(shape, generator=rng)
                layer.running_var = 0.5 + torch.rand(shape, generator=rng)
                layer.weight.data = 0.7 + 0.6 * torch.rand(shape, generator=rng)
                layer.bias.data = 0.3 * torch.randn(shape, generator=rng)
        return net.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def server() -> Iterator[object]:
    """A ``buckets.Bucket``; its keys are in the environment while it runs."""
    pytest.importorskip("moto.server", reason="moto[server] is not installed: no S3 to test against")
    from buckets import KEYS, bucket

    with pytest.MonkeyPatch.context() as patch, bucket() as running:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        yield running
