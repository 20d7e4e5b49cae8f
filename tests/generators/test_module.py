"""Any module as a generator: layers by name, edits put in on a second run, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from qualitygate.errors import InputError, LayerError
from qualitygate.generators.module import ModuleGenerator, module_generator
from qualitygate.latents import draw_latents

LAYERS = ["body.1", "body.3", "up.1"]


class Skipping(nn.Module):
    """Three layers, an in-place ReLU after each, and a skip that reads the first layer's output again at the end."""

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.ConvTranspose2d(6, 4, 4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.up = nn.Sequential(nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1), nn.ReLU(inplace=True))
        self.image = nn.Conv2d(4, 3, 1)
        self.embed = nn.Embedding(classes, 6) if classes else None
        self.calls = 0

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        self.calls += 1
        if self.embed is not None:
            z = z + self.embed(labels)[:, :, None, None]
        first = self.body[1](self.body[0](z))
        second = self.body[3](self.body[2](first))
        third = self.up[1](self.up[0](second))
        return torch.tanh(self.image(third.add_(nn.functional.interpolate(first, scale_factor=2))))


def by_hand(net: Skipping, z: Tensor, edits: dict[int, float]) -> tuple[list[Tensor], Tensor]:
    """Activations and image with each layer in ``edits`` multiplied by a number, in plain functions."""

    def layer(index: int, before: Tensor) -> Tensor:
        return before.clamp(min=0.0) * edits.get(index, 1.0)

    first = layer(0, net.body[0](z[:, :, None, None]))
    second = layer(1, net.body[2](first))
    third = layer(2, net.up[0](second))
    image = torch.tanh(net.image(third + nn.functional.interpolate(first, scale_factor=2)))
    return [first, second, third], image


@pytest.fixture
def net() -> Skipping:
    torch.manual_seed(0)
    return Skipping().requires_grad_(False)


@pytest.fixture
def z() -> Tensor:
    return draw_latents(range(3), 1, 6).z


def hooks(net: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in net.modules())


def test_layers_in_order_of_execution_with_shapes_and_operations(net: Skipping) -> None:
    generator = ModuleGenerator(net, list(reversed(LAYERS)), latent_size=6)
    assert [layer.name for layer in generator.layers] == LAYERS
    assert [(layer.units, layer.height, layer.width) for layer in generator.layers] == [(4, 4, 4), (4, 4, 4), (4, 8, 8)]
    first = 2 * 6 * 4 * 16
    second = first + 2 * 4 * 4 * 9 * 16
    third = second + 2 * 4 * 4 * 16 * 16  # a transposed convolution: every input meets every tap
    assert [layer.operations for layer in generator.layers] == [first, second, third]
    assert generator.operations == third + 2 * 4 * 3 * 64
    assert generator.image_shape == (3, 8, 8)
    assert generator.settings["latent_form"] == "map"
    assert generator.settings["network"].endswith("test_module.Skipping")


def test_states_and_images_equal_the_network(net: Skipping, z: Tensor) -> None:
    generator = ModuleGenerator(net, LAYERS, latent_size=6)
    activations, image = by_hand(net, z, {})
    assert torch.equal(generator(z), image)
    for state, expected in zip(generator.states(generator.start(z)), activations, strict=True):
        torch.testing.assert_close(state.activation, expected)
    taps = generator.taps(z, names=["activation/body.1"])
    torch.testing.assert_close(taps["activation/body.1"], activations[0])


@pytest.mark.parametrize("edits", [{0: 0.5}, {1: 0.25}, {2: 2.0}, {0: 0.5, 1: 0.0, 2: 3.0}])
def test_edits_equal_the_computation_by_hand(net: Skipping, z: Tensor, edits: dict[int, float]) -> None:
    generator = ModuleGenerator(net, LAYERS, latent_size=6)
    activations, image = by_hand(net, z, edits)
    functions = {index: lambda h, factor=factor: h * factor for index, factor in edits.items()}
    torch.testing.assert_close(generator(z, functions), image)
    for state, expected in zip(generator.states(generator.start(z), edits=functions), activations, strict=True):
        torch.testing.assert_close(state.activation, expected)


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_an_edit_between_two_layers_reaches_every_consumer(net: Skipping, z: Tensor, stop: int) -> None:
    generator = ModuleGenerator(net, LAYERS, latent_size=6)
    state = generator.run(generator.start(z), stop)
    activations, image = by_hand(net, z, {stop: 0.5})
    edited = state.edited(state.activation * 0.5)
    torch.testing.assert_close(generator.resume(edited), image)
    while edited.layer < 2:
        edited = generator.advance(edited)
        torch.testing.assert_close(edited.activation, activations[edited.layer])
    torch.testing.assert_close(generator.finish(edited), image)


def test_a_state_is_not_changed_by_what_runs_after_it(net: Skipping, z: Tensor) -> None:
    """The network adds to its third layer in place, and the second ReLU works in place on what the hook put in."""
    generator = ModuleGenerator(net, LAYERS, latent_size=6)
    states = list(generator.states(generator.start(z)))
    before = [state.activation.clone() for state in states]
    for state in states:
        generator.resume(state)
    assert all(torch.equal(state.activation, kept) for state, kept in zip(states, before, strict=True))


class Linear(nn.Module):
    """A named layer whose output the next step changes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        self.conv.weight.data.fill_(-2.0)

    def forward(self, z: Tensor) -> Tensor:
        return self.conv(z[:, None, None, :].expand(-1, -1, 2, -1)).relu_() * 0.25


def test_numbers_by_hand_with_an_in_place_nonlinearity_after_the_layer() -> None:
    generator = ModuleGenerator(Linear().requires_grad_(False), ["conv"], latent_size=2, image_range=(0.0, 1.0))
    z = torch.tensor([[-1.0, 0.5]])
    state = generator.advance(generator.start(z))
    assert state.activation.tolist() == [[[[2.0, -1.0], [2.0, -1.0]]]]
    assert generator(z).tolist() == [[[[0.0, -1.0], [0.0, -1.0]]]]  # 0.5 and 0 of (0, 1)
    assert generator.resume(state.edited(torch.full((1, 1, 2, 2), 4.0))).tolist() == [[[[1.0, 1.0], [1.0, 1.0]]]]
    assert generator.settings["latent_form"] == "vector"


def test_labels_reach_the_network(z: Tensor) -> None:
    torch.manual_seed(0)
    net = Skipping(classes=3).requires_grad_(False)
    generator = ModuleGenerator(net, LAYERS, latent_size=6, label_size=3)
    latents = draw_latents(range(4), 1, 6, label_size=3)
    assert torch.equal(generator(latents), net(latents.z[:, :, None, None], latents.labels))
    with pytest.raises(InputError, match="without labels"):
        generator(z)


class OneHot(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pixels = nn.Conv2d(5, 3, 1)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return self.pixels(torch.cat([z, labels], 1)[:, :, None, None])


def test_labels_as_vectors() -> None:
    net = OneHot().requires_grad_(False)
    generator = ModuleGenerator(net, ["pixels"], 2, label_size=3, label_form="vectors")
    latents = draw_latents(range(4), 1, 2, label_size=3)
    expected = net(latents.z, nn.functional.one_hot(latents.labels, 3).float())
    assert torch.equal(generator.finish(generator.run(generator.start(latents), 0)), expected)


def test_one_pass_whatever_is_listed_and_none_past_the_wanted_layer(net: Skipping, z: Tensor) -> None:
    generator = ModuleGenerator(net, LAYERS, latent_size=6)
    past = []
    net.image.register_forward_hook(lambda *_: past.append(1))
    net.calls = 0
    generator(z, {0: torch.zeros_like})
    assert (net.calls, len(past)) == (1, 1)
    generator.run(generator.start(z), 2)
    assert (net.calls, len(past)) == (2, 1)


def test_the_mode_of_the_network_is_left_alone(net: Skipping, z: Tensor) -> None:
    net.body.insert(1, nn.BatchNorm2d(4))  # unused by forward, but with a mode of its own
    net.train()
    net.up.eval()
    ModuleGenerator(net, ["up.1"], latent_size=6)(z)
    assert net.training
    assert net.body[1].training
    assert not net.up.training
    assert not net.up[0].training


class Fails(nn.Module):
    """Two layers; raises after the first on demand, before the network's end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1)
        self.failing = False

    def forward(self, z: Tensor) -> Tensor:
        h = self.first(z[:, :, None, None])
        if self.failing:
            raise ValueError("no luck")
        return self.second(h)


@pytest.mark.parametrize("use", ["forward", "states", "run", "advance", "resume", "finish", "taps"])
@pytest.mark.parametrize("failing", [False, True])
def test_no_hook_is_left_behind(use: str, failing: bool) -> None:
    net = Fails().requires_grad_(False)
    generator = ModuleGenerator(net, ["first", "second"], latent_size=2)
    z = torch.zeros(2, 2)
    first = generator.run(generator.start(z), 0)
    last = generator.run(first, 1)
    uses = {
        "forward": lambda: generator(z),
        "states": lambda: list(generator.states(generator.start(z))),
        "run": lambda: generator.run(generator.start(z), 1),
        "advance": lambda: generator.advance(first),
        "resume": lambda: generator.resume(first),
        "finish": lambda: generator.finish(last),
        "taps": lambda: generator.taps(z, names=["activation/first"]),
    }
    net.failing = failing
    if failing:
        with pytest.raises(ValueError, match="no luck"):
            uses[use]()
    else:
        uses[use]()
    assert hooks(net) == 0
    assert generator._taps is None


def test_no_hook_is_left_behind_by_an_edit_that_fails(net: Skipping, z: Tensor) -> None:
    generator = ModuleGenerator(net, LAYERS, latent_size=6)
    with pytest.raises(InputError, match="changed the activation's shape"):
        generator(z, {1: lambda h: h[:, :1]})
    assert hooks(net) == 0


def test_no_hook_is_left_behind_by_a_network_that_cannot_be_run(net: Skipping) -> None:
    with pytest.raises(InputError, match="could not be run") as caught:
        ModuleGenerator(net, LAYERS, latent_size=5)
    assert "(1, 5)" in str(caught.value)
    assert "(1, 5, 1, 1)" in str(caught.value)
    assert hooks(net) == 0


class Sometimes(nn.Module):
    """Runs its layer once, twice or not at all, and catches every ordinary exception."""

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        self.layer, self.unused, self.flat = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.Linear(2, 2)
        self.times = times

    def forward(self, z: Tensor) -> Tensor:
        h = self.flat(z)[:, :, None, None]
        for _ in range(self.times):
            try:
                h = self.layer(h)
            except RuntimeError:
                raise AssertionError("the network saw the end of the pass") from None
        return h


def test_a_layer_must_run_exactly_once() -> None:
    with pytest.raises(LayerError, match="twice"):
        ModuleGenerator(Sometimes(2), ["layer"], 2)
    with pytest.raises(LayerError, match="did not run"):
        ModuleGenerator(Sometimes(), ["unused"], 2)
    net = Sometimes().requires_grad_(False)
    generator = ModuleGenerator(net, ["layer"], 2)
    net.times = 2
    with pytest.raises(LayerError, match="exactly once"):
        generator(torch.zeros(1, 2))
    net.times = 0
    with pytest.raises(LayerError, match="did not run in this pass"):
        generator.run(generator.start(torch.zeros(1, 2)), 0)
    assert hooks(net) == 0


def test_layers_that_cannot_be_used() -> None:
    with pytest.raises(LayerError, match=r"no such layer\n  found: 'nowhere'\n  needed: one of layer, unused, flat"):
        ModuleGenerator(Sometimes(), ["layer", "nowhere"], 2)
    with pytest.raises(LayerError, match=r"no activation\n  found: a tensor \(1, 2\)"):
        ModuleGenerator(Sometimes(), ["flat"], 2)
    for names in ([], ["layer", "layer"]):
        with pytest.raises(LayerError, match="different ones"):
            ModuleGenerator(Sometimes(), names, 2)
    with pytest.raises(InputError, match="range is empty"):
        ModuleGenerator(Sometimes(), ["layer"], 2, image_range=(1.0, 1.0))


def test_a_network_by_import_path(tmp_path, monkeypatch) -> None:
    (tmp_path / "my_networks.py").write_text(
        "import torch\n"
        "class Nets:\n"
        "    @staticmethod\n"
        "    def build(): return torch.nn.Sequential(torch.nn.Conv2d(4, 3, 1), torch.nn.Tanh())\n"
        "def number(): return 3\n"
        "ready = torch.nn.Identity()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    generator = module_generator("my_networks:Nets.build", ["1"], 4, image_range=(-2.0, 2.0))
    assert [layer.units for layer in generator.layers] == [3]
    assert generator(torch.zeros(2, 4)).shape == (2, 3, 1, 1)
    for path, found in [
        ("my_networks", "not an import path"),
        ("my_networks:nothing", "no attribute 'nothing'"),
        ("no_such_networks:build", "No module named"),
        ("my_networks:number", "did not make a network\n  found: a int"),
        ("my_networks:ready", "not a function that makes a network"),
    ]:
        with pytest.raises(InputError, match=found):
            module_generator(path, ["1"], 4)


def test_the_fingerprint_takes_in_every_tensor() -> None:
    """A batch norm counts its batches in a tensor without dimensions."""

    def identity(batches: int) -> str:
        torch.manual_seed(0)
        net = nn.Sequential(nn.ConvTranspose2d(6, 3, 4), nn.BatchNorm2d(3), nn.ReLU())
        net[1].num_batches_tracked.fill_(batches)
        return ModuleGenerator(net, ["2"], 6).identity().sha256

    assert identity(1) == identity(1)
    assert identity(1) != identity(2)
