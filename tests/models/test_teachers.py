"""Every teacher keeps what its spec states; checkpoints of another kind are refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lrfr.errors import UserError
from lrfr.gate.dlib_weights import embedded_path
from lrfr.gate.state import insert_state, read_state
from lrfr.models.inception import InceptionTeacher
from lrfr.models.teachers import TEACHERS, build_teacher

OFFLINE = {"dlib_resnet": "embedded"}  # all others have random weights here


@pytest.fixture(scope="module", params=list(TEACHERS))
def built(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    return request.param, build_teacher(request.param, OFFLINE.get(request.param, "random"))


def test_the_spec_is_what_the_network_returns(built: tuple[str, nn.Module]) -> None:
    name, net = built
    spec = TEACHERS[name]
    with torch.inference_mode():
        features = net(torch.full((2, 3, spec.chip, spec.chip), 100.0))
    assert tuple(m.shape[1:] for m in features.maps) == tuple(
        (c, s, s) for c, s in zip(spec.channels, spec.sides, strict=True)
    )
    assert features.embedding.shape == (2, spec.embedding)


def test_the_stated_normalisation_is_the_one_inside(built: tuple[str, nn.Module]) -> None:
    name, net = built
    spec = TEACHERS[name]
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    seen = []
    handle = first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = 255 * torch.rand(1, 3, spec.chip, spec.chip, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        net.prefix(x)
    handle.remove()
    assert torch.allclose(seen[0], (x - torch.tensor(spec.mean).reshape(1, 3, 1, 1)) / spec.scale, rtol=0, atol=1e-5)


def test_a_teacher_is_frozen_and_in_eval_mode(built: tuple[str, nn.Module]) -> None:
    _, net = built
    assert not net.training and not any(p.requires_grad for p in net.parameters())


def test_the_stated_parameters_are_those_that_the_last_steps_use(built: tuple[str, nn.Module]) -> None:
    name, net = built
    with torch.no_grad():
        stage = net.prefix(torch.full((2, 3, TEACHERS[name].chip, TEACHERS[name].chip), 100.0))[-1]
        pooled = net.pooled(stage)[1]
    parameters = dict(net.named_parameters())
    runs = (lambda: net.head(net.pooled(stage)[1])), (lambda: net.head(pooled))
    for run, prefixes in zip(runs, (net.LAST_STAGE, net.HEAD), strict=True):
        net.requires_grad_(True)
        gradients = torch.autograd.grad(run().square().sum(), list(parameters.values()), allow_unused=True)
        net.requires_grad_(False)
        used = {key for key, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
        assert used == {key for key in parameters if key.startswith(prefixes)}


def test_building_twice_gives_the_same_bits_and_leaves_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, second = (build_teacher("dlib_resnet", "embedded", 16).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_published_weights_lose_their_classifier(tmp_path: Path) -> None:
    source = InceptionTeacher()  # other random weights than those that `build_teacher` starts from
    torch.save({**source.net.state_dict(), "logits.weight": torch.zeros(5, 512)}, tmp_path / "published.pt")
    net = build_teacher("inception_resnet_v1", str(tmp_path / "published.pt"))
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), source.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("name", "weights", "reduction", "reason"),
    [
        ("resnet999", "embedded", None, "no teacher 'resnet999'; known are dlib_resnet, inception_resnet_v1"),
        ("dlib_resnet", "nowhere.dat", None, "'nowhere.dat' is no file"),
        ("inception_resnet_v1", "embedded", None, "'embedded' is no file"),
        ("inception_resnet_v1", "random", 16, "squeeze-excitation"),
    ],
)
def test_what_does_not_exist_is_a_user_error(name: str, weights: str, reduction: int | None, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        build_teacher(name, weights, reduction)


def test_a_damaged_dlib_file_is_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "damaged.dat"
    path.write_bytes(embedded_path().read_bytes()[:1000])
    with pytest.raises(UserError, match=r"damaged\.dat"):
        build_teacher("dlib_resnet", str(path))


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    source, copy = nn.Linear(3, 2), nn.Linear(3, 2)
    save_file(source.state_dict(), tmp_path / "x.safetensors")
    insert_state(copy, read_state(tmp_path / "x.safetensors"), tmp_path / "x.safetensors")
    assert torch.equal(source.weight, copy.weight) and torch.equal(source.bias, copy.bias)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"weight": torch.zeros(2, 3)}, "'bias' should be .* absent"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, r"'weight' should be \(2, 3\) and is \(3, 2\)"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "more": torch.zeros(1)}, "'more' should be absent"),
        (
            {"weight": torch.full((2, 3), torch.nan), "bias": torch.zeros(2)},
            "'weight' holds values that are not finite",
        ),
    ],
)
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_checkpoint_of_another_kind_is_refused_and_changes_nothing(
    tmp_path: Path, state: dict[str, torch.Tensor], reason: str, suffix: str
) -> None:
    path, module = tmp_path / f"other.{suffix}", nn.Linear(3, 2)
    before = module.weight.clone()
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    with pytest.raises(UserError, match=reason) as error:
        insert_state(module, read_state(path), path)
    assert str(path) in str(error.value) and torch.equal(module.weight, before)


@pytest.mark.parametrize(
    "name", ["text.safetensors", "text.pt", "missing.safetensors", "missing.pt", "pickle.pt", "nested.pt"]
)
def test_what_is_no_checkpoint_is_a_user_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("text"):
        path.write_text("these are no weights")
    if name.startswith("pickle"):
        torch.save(nn.Linear(3, 2), path)  # a whole module: reading it would run code
    if name.startswith("nested"):
        torch.save({"state": {"weight": torch.zeros(2, 3)}}, path)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        insert_state(nn.Linear(3, 2), read_state(path), path)
