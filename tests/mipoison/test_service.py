"""The defended API: chunks, memory, meter, and fresh against keyed answers."""

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mipoison.defenses import DEFENSES
from mipoison.defenses.base import BaseDefense
from mipoison.defenses.noise import NoiseConfig
from mipoison.defenses.pipeline import victim_of
from mipoison.models.classifier import ClassifierConfig, confidence_vectors
from mipoison.protocols import DefenderView, Defense
from mipoison.randomness import QueryRandomness, content_keys, generator
from mipoison.service import CHUNK, DefendedService, MeteredOracle, chunk_count
from mipoison.training import seeded
from tests.mipoison.defenses.helpers import few_starts, skip_without_library

CPU = torch.device("cpu")
K = 4


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 16, 16, generator=generator(seed, "service"))


@pytest.fixture(scope="module")
def victim() -> torch.nn.Module:
    with seeded(generator(0), CPU):
        model = ClassifierConfig(width=2, hidden=8).make((1, 16, 16), K).eval().requires_grad_(False)
    for p in model.parameters():
        p.data *= 2  # vectors that differ
    return model


@pytest.fixture(scope="module")
def make_service(victim: torch.nn.Module, make_decoder: Callable[..., Any]) -> Callable[..., DefendedService]:
    fitted: dict[str, Defense] = {}

    def make(name: str = "noise", secret: bytes = b"secret", **changes: Any) -> DefendedService:
        skip_without_library(name)
        key = f"{name} {changes}"
        if key not in fitted:
            fitted[key] = fit(name, changes)
        return DefendedService(victim, copy.deepcopy(fitted[key]), secret=secret, n_classes=K, device=CPU)

    def fit(name: str, changes: dict[str, Any]) -> Defense:
        x = images(40, seed=9)
        c = confidence_vectors(victim, x)
        view = DefenderView(
            x_private_NCHW=x,
            c_private_NK=c,
            y_private_N=c.argmax(1),
            substitute=lambda config: make_decoder(K),
            substitute_data=lambda config: (c, x),
            n_classes=K,
            ask=victim_of(victim, K, CPU),
            victim=ClassifierConfig(width=2, hidden=8, steps=30),
        )
        defense: Defense = DEFENSES[name](**changes).make()  # type: ignore[attr-defined]
        with pytest.MonkeyPatch.context() as patch:
            few_starts(patch)
            defense.fit(view, rng=generator(0))
        return defense

    return make


class Recorder(BaseDefense):
    """Counts what it is asked to protect."""

    draws = True
    reads_image = True

    def __init__(self, fresh: bool = False) -> None:
        self.fresh, self.chunks, self.requests = fresh, [], []

    def pick(self, c_NK: Tensor) -> Tensor:
        self.requests.append(len(c_NK))
        return super().pick(c_NK)

    def protect(self, c_NK: Tensor, x_NCHW: Tensor, picked_N: Tensor, *, rng: QueryRandomness) -> Tensor:
        self.chunks.append((c_NK.clone(), x_NCHW.clone(), picked_N.clone(), rng.keys_N.clone()))
        return c_NK.clone()


def recording(victim: torch.nn.Module, fresh: bool = False) -> tuple[DefendedService, Recorder]:
    recorder = Recorder(fresh)
    return DefendedService(victim, recorder, secret=b"s", n_classes=K, device=CPU), recorder


# ------------------------------------------------------------------------------------------------- chunks


def test_chunk_count() -> None:
    assert [chunk_count(n) for n in (0, 1, CHUNK, CHUNK + 1, 3 * CHUNK)] == [0, 1, 1, 2, 3]


@pytest.mark.parametrize("name", DEFENSES)
def test_a_request_equals_its_chunks_bit_for_bit(
    name: str, make_service: Callable[..., DefendedService]
) -> None:
    x = images(2 * CHUNK + 44)
    whole = make_service(name).release(x)
    joined: dict[int, Tensor] = {}
    for k in (2, 0, 1):  # any order, each on a service of its own, as ranks have
        part = make_service(name).release_chunks(x, [k])
        assert list(part) == [k]
        joined |= part
    assert torch.equal(torch.cat([joined[k] for k in range(3)]), whole)
    pairs = make_service(name).release_chunks(x, [1, 2])
    assert torch.equal(torch.cat([pairs[1], pairs[2]]), whole[CHUNK:])


def test_fresh_draws_follow_the_asked_counts_across_chunks(
    make_service: Callable[..., DefendedService],
) -> None:
    x, asked = images(CHUNK + 20), [i % 3 for i in range(CHUNK + 20)]
    service = make_service("noise", randomness="fresh")
    whole = service.release(x, asked_N=asked)
    assert torch.equal(service.release_chunks(x, [1], asked_N=asked)[1], whole[CHUNK:])
    first = service.release(x)
    changed = (first != whole).any(1)
    assert changed.tolist() == [a > 0 for a in asked]


def test_chunks_get_their_rows_and_the_pick_sees_the_request(victim: torch.nn.Module) -> None:
    service, recorder = recording(victim)
    x = images(CHUNK + 5)
    service.release(x)
    assert recorder.requests == [CHUNK + 5]
    assert [len(c) for c, *_ in recorder.chunks] == [CHUNK, 5]
    assert torch.equal(torch.cat([rows for _, rows, _, _ in recorder.chunks]), x)
    assert torch.equal(torch.cat([keys for *_, keys in recorder.chunks]), content_keys(x, b"s"))
    torch.testing.assert_close(torch.cat([c for c, *_ in recorder.chunks]), confidence_vectors(victim, x))


def test_clean_vectors_are_those_of_the_victim(victim: torch.nn.Module) -> None:
    service, _ = recording(victim)
    x = images(CHUNK + 5)
    assert torch.equal(service.clean(x), confidence_vectors(victim, x, batch=CHUNK))
    assert service.clean(x[:0]).shape == (0, K)
    assert torch.equal(service.release(x), service.clean(x))


def test_no_queries_no_answers(make_service: Callable[..., DefendedService]) -> None:
    service = make_service()
    empty = images(0)
    assert service.release(empty).shape == (0, K)
    assert service.answer(empty).shape == (0, K)
    assert service.release_chunks(empty, []) == {}


# ------------------------------------------------------------------------------------------------ streams


def batches(x: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    return iter(x.split(sizes))


@pytest.mark.parametrize("name", ["none", "rounding", "noise", "lpa", "label-only"])
def test_a_stream_releases_what_one_request_does(
    name: str, make_service: Callable[..., DefendedService], tmp_path: Path
) -> None:
    x = images(3 * CHUNK + 40)
    whole = make_service(name).release(x)
    file = np.memmap(tmp_path / "x", dtype=np.float32, mode="w+", shape=tuple(x.shape))
    file[:] = x.numpy()
    sources = {
        "tensor": x,
        "memmap": file,
        "iterator": batches(x, [1, 0, 200, CHUNK, 95]),
        "list": [x[:50].numpy(), x[50:]],
    }
    for kind, source in sources.items():
        for window in (CHUNK, 2 * CHUNK) if kind in ("tensor", "memmap") else (2 * CHUNK,):
            parts = list(make_service(name).release_stream(source, window=window))
            assert [len(p) for p in parts[:-1]] == [window] * (len(x) // window), kind
            assert torch.equal(torch.cat(parts), whole), kind


def test_a_stream_of_bytes_is_one_of_pixels(make_service: Callable[..., DefendedService]) -> None:
    x = (images(30) * 255).round().byte()
    (out,) = make_service().release_stream(x.numpy())
    assert torch.equal(out, make_service().release(x.float() / 255))


def test_a_stream_is_picked_window_by_window(make_service: Callable[..., DefendedService]) -> None:
    """LFP touches a share of each window, not of the whole stream: nobody can wait for its end."""
    x, service = images(4 * CHUNK), make_service("lfp", picks="request", ratio=0.1, rounds=0)
    parts = list(service.release_stream(x, window=2 * CHUNK))
    for part, rows in zip(parts, x.split(2 * CHUNK), strict=True):
        assert torch.equal(part, service.release(rows))
        assert int((part != service.clean(rows)).any(1).sum()) == round(0.1 * 2 * CHUNK)
    assert not torch.equal(torch.cat(parts), service.release(x))


def test_nothing_is_read_ahead_or_kept(victim: torch.nn.Module) -> None:
    service, recorder = recording(victim)
    read = []

    def source() -> Iterator[Tensor]:
        for i in range(5):
            read.append(i)
            yield images(CHUNK, seed=i)

    stream = service.release_stream(source(), window=CHUNK)
    assert read == []
    next(stream)
    next(stream)
    assert read == [0, 1]
    assert recorder.requests == [CHUNK, CHUNK]
    assert not service._memory
    assert not service._asked
    assert list(service.release_stream(iter([]))) == []


@pytest.mark.parametrize("window", [0, -CHUNK, CHUNK - 1, CHUNK + 1])
def test_windows_are_whole_chunks(make_service: Callable[..., DefendedService], window: int) -> None:
    with pytest.raises(ValueError, match=f"window = {window}: must be a multiple of {CHUNK}"):
        make_service().release_stream(images(3), window=window)  # before anything is asked for
    with pytest.raises(ValueError, match=r"shape \(N, C, H, W\)"):
        next(make_service().release_stream(torch.zeros(3, 256)))


STREAM = """
import resource, sys, time
import torch
from mipoison.models.classifier import ClassifierConfig
from mipoison.models.inversion import InversionConfig
from mipoison.protocols import DefenderView
from mipoison.randomness import generator
from mipoison.defenses import DEFENSES
from mipoison.service import DefendedService

torch.set_num_threads(1)
name, few, many = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
settings = {"rounds": 1, "budget": 0.05, "search": "descent"} if name == "lpa" else {}
victim = ClassifierConfig(width=2, hidden=8).make((1, 16, 16), 4).eval().requires_grad_(False)
x, c = torch.rand(20, 1, 16, 16), torch.full((20, 4), 0.25)
view = DefenderView(
    x_private_NCHW=x, c_private_NK=c, y_private_N=c.argmax(1), n_classes=4,
    substitute=lambda _: InversionConfig(width=2).make((1, 16, 16), 4).eval().requires_grad_(False),
    substitute_data=lambda _: (c, x),
)
defense = DEFENSES[name](**settings).make()
defense.fit(view, rng=generator(0))
service = DefendedService(
    victim, defense, secret=b"s", n_classes=4, device=torch.device("cpu"), remembered=1000
)

def queries(n):
    rng = generator(n)
    for start in range(0, n, 1000):
        yield torch.rand(min(1000, n - start), 1, 16, 16, generator=rng)

def through(n):
    start, count = time.process_time(), 0
    for part in service.release_stream(queries(n)):
        count += len(part)
    assert count == n
    return (time.process_time() - start) / n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def asked(n):
    for batch in queries(n):
        service.answer(batch)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

through(few)
print(*through(few), *through(many))
if name == "rounding":
    print(asked(few), asked(many // 4))
"""


@pytest.mark.long
@pytest.mark.parametrize(("name", "few", "many"), [("rounding", 10_000, 200_000), ("lpa", 4_000, 24_000)])
def test_memory_and_time_per_query_do_not_grow(name: str, few: int, many: int) -> None:
    """In a process of its own: peak memory is of the whole process. 200,000 images are 205 MB."""
    kib = 1 if sys.platform != "darwin" else 1024
    command = [sys.executable, "-c", STREAM, name, str(few), str(many)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    lines = [[float(v) for v in line.split()] for line in run.stdout.splitlines()]
    seconds, peak, seconds_many, peak_many = lines[0]
    assert (peak_many - peak) / kib < 16 * 1024, "memory grows with the queries"
    assert seconds_many < 2 * seconds, "time per query grows with the queries"
    for small, large in lines[1:]:  # answers that are remembered: so many, and no more
        assert (large - small) / kib < 16 * 1024


# ------------------------------------------------------------------------------------------------- answers


def test_so_many_answers_are_remembered_and_the_oldest_go_first(victim: torch.nn.Module) -> None:
    recorder = Recorder()
    service = DefendedService(victim, recorder, secret=b"s", n_classes=K, device=CPU, remembered=4)
    x = images(9)
    told = torch.eye(K)[:2]
    service.remember(x[:2], told)
    answer = service.answer(x)  # longer than what is remembered
    assert torch.equal(answer[:2], told)
    assert len(service._memory) == 4
    assert torch.equal(service.answer(x[5:]), answer[5:])
    assert torch.equal(service.answer(x[:2]), told)  # told once, never forgotten
    assert recorder.requests == [7]
    torch.testing.assert_close(service.answer(x[2:4]), answer[2:4])
    assert recorder.requests == [7, 2]
    forgetful = DefendedService(victim, recorder, secret=b"s", n_classes=K, device=CPU, remembered=0)
    torch.testing.assert_close(forgetful.answer(x[:3]), forgetful.answer(x[:3]))
    assert not forgetful._memory


def test_answers_are_remembered(victim: torch.nn.Module) -> None:
    service, recorder = recording(victim)
    x = images(6)
    first = service.answer(x)
    assert torch.equal(service.answer(x), first)
    assert torch.equal(service.answer(x[[4, 1]]), first[[4, 1]])
    assert recorder.requests == [6]
    service.answer(torch.cat([x[:2], images(3, seed=1)]))
    assert recorder.requests == [6, 3]  # only what is new is computed


def test_answers_equal_releases(make_service: Callable[..., DefendedService]) -> None:
    x = images(20)
    assert torch.equal(make_service().answer(x), make_service().release(x))


def test_told_answers_are_given_on_the_first_asking(make_service: Callable[..., DefendedService]) -> None:
    x, told = images(3), torch.eye(K)[:3]
    for randomness in ("keyed", "fresh"):
        service = make_service("noise", randomness=randomness)
        service.remember(x, told)
        assert torch.equal(service.answer(x[[2, 0]]), told[[2, 0]])
        again = service.answer(x[[2, 0]])
        assert torch.equal(again, told[[2, 0]]) == (randomness == "keyed")
    with pytest.raises(ValueError, match="zip"):
        make_service().remember(x, told[:2])


def test_keyed_answers_repeat_and_fresh_ones_do_not(make_service: Callable[..., DefendedService]) -> None:
    x = images(8)
    keyed, fresh = make_service("noise"), make_service("noise", randomness="fresh")
    assert torch.equal(keyed.answer(x), keyed.answer(x))
    answers = [fresh.answer(x) for _ in range(3)]
    for i in range(3):
        for j in range(i):
            assert bool((answers[i] != answers[j]).any(1).all())
    doubled = make_service("noise", randomness="fresh").answer(torch.cat([x, x]))  # within one request too
    assert torch.equal(doubled[:8], answers[0])
    assert torch.equal(doubled[8:], answers[1])
    doubled = make_service("noise").answer(torch.cat([x, x]))
    assert torch.equal(doubled[:8], doubled[8:])


def test_fresh_answers_repeat_in_another_process(make_service: Callable[..., DefendedService]) -> None:
    """Fresh means fresh for each asking, not irreproducible."""
    x = images(8)
    a, b = (make_service("noise", randomness="fresh") for _ in range(2))
    for _ in range(3):
        assert torch.equal(a.answer(x), b.answer(x))


def test_averaging_fresh_answers_approaches_the_clean_vector(
    make_service: Callable[..., DefendedService],
) -> None:
    x = images(4)
    service = make_service("noise", randomness="fresh", budget=0.01)
    single = (service.answer(x) - service.clean(x)).norm(dim=1).mean()
    mean = torch.stack([service.answer(x) for _ in range(64)]).mean(0)
    assert float((mean - service.clean(x)).norm(dim=1).mean()) < 0.4 * float(single)


def test_other_secrets_other_answers(make_service: Callable[..., DefendedService]) -> None:
    x = images(8)
    assert bool((make_service(secret=b"a").answer(x) != make_service(secret=b"b").answer(x)).any(1).all())


def test_queries_are_left_alone_and_answers_are_copies(make_service: Callable[..., DefendedService]) -> None:
    service = make_service()
    oracle = MeteredOracle(service.answer, K)
    x = images(5)
    before = x.clone()
    first = oracle.query(x)
    kept = first.clone()
    first.zero_()  # the attacker may do as it likes with its copy
    assert torch.equal(oracle.query(x), kept)
    assert torch.equal(x, before)


def test_remembered_answers_do_not_change_with_the_caller_s_tensor(
    make_service: Callable[..., DefendedService],
) -> None:
    service, x, told = make_service(), images(3), torch.eye(K)[:3]
    service.remember(x, told)
    told.zero_()
    assert torch.equal(service.answer(x), torch.eye(K)[:3])


# ---------------------------------------------------------------------------------------- the oracle


def test_the_meter_counts_images(make_service: Callable[..., DefendedService]) -> None:
    oracle = MeteredOracle(make_service().answer, K)
    assert (oracle.queries, oracle.n_classes) == (0, K)
    oracle.query(images(5))
    oracle.query(images(5))
    oracle.query(images(0))
    assert oracle.queries == 10


def test_the_oracle_answers_detached_float32_on_the_cpu(make_service: Callable[..., DefendedService]) -> None:
    out = MeteredOracle(make_service().answer, K).query(images(3).requires_grad_(True))
    assert out.shape == (3, K)
    assert out.dtype == torch.float32
    assert not out.requires_grad
    assert out.device.type == "cpu"


@pytest.mark.parametrize("shape", [(16, 16), (1, 16, 16), (2, 256), (1, 2, 1, 16, 16)])
def test_queries_that_are_no_images_are_refused(
    make_service: Callable[..., DefendedService], shape: tuple
) -> None:
    oracle = MeteredOracle(make_service().answer, K)
    with pytest.raises(ValueError, match=r"shape \(N, C, H, W\)"):
        oracle.query(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 20, 16)])
def test_images_of_another_shape_are_refused(
    make_service: Callable[..., DefendedService], shape: tuple
) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        make_service().answer(torch.zeros(shape))


def test_a_refused_query_leaves_no_trace(make_service: Callable[..., DefendedService]) -> None:
    """A query that raised was not answered: asking it again after the failure gets the first answer."""
    service = make_service("noise", randomness="fresh")
    expected = make_service("noise", randomness="fresh").answer(images(2))
    victim, service._pipeline.model = service._pipeline.model, torch.nn.Linear(1, 1)
    with pytest.raises(RuntimeError):
        service.answer(images(2))
    service._pipeline.model = victim
    assert torch.equal(service.answer(images(2)), expected)


def test_noise_through_the_service_is_keyed_by_the_content(
    make_service: Callable[..., DefendedService],
) -> None:
    x = images(30)
    order = torch.randperm(30, generator=generator(0))
    service = make_service("noise", budget=0.02)
    torch.testing.assert_close(service.release(x[order]), service.release(x)[order], rtol=0, atol=1e-6)
    defense = NoiseConfig(budget=0.02).make()
    clean = service.clean(x)
    by_hand = defense.protect(clean, x, defense.pick(clean), rng=QueryRandomness(content_keys(x, b"secret")))
    assert torch.equal(service.release(x), by_hand)


@pytest.mark.parametrize("name", ["noise", "lpa"])
def test_as_if_the_classifier_had_answered_what_it_answers(
    make_service: Callable[..., DefendedService], name: str
) -> None:
    service, x = make_service(name), images(20)
    assert torch.equal(service.release_as_if(service.clean(x), x), service.release(x))
    uniform = torch.full((20, K), 1 / K)
    assert not torch.equal(service.release_as_if(uniform, x), service.release(x))
