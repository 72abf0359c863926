"""How many launches a step takes on a GPU. A small network's time there is little else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import standin
from narrow import game_of, image_shape

from tinygan.backend import Backend
from tinygan.backend.cupy_backend import CupyBackend
from tinygan.data.minibatches import Minibatches
from tinygan.gan import ORDERS
from tinygan.presets import get_preset

Open = Callable[..., CupyBackend]

# What one step launches; `numbers` are not in it, since a graph sets all of a step's at once.
# A dense layer takes two forward (product, bias) and three backward (product, and its gradients'
# two), any other layer one each way, but dropout three forward (words, factor, product).
MOST = {"mlp-batchnorm": 116, "mlp-leaky": 81, "goodfellow2014": 99}


def launches(name: str, backend: Backend) -> Counter[str]:
    """What the third step of a narrow copy of the preset launches: memory has been made by then."""
    preset = get_preset(name)
    game = game_of(preset, backend)
    images = np.zeros((20, *image_shape(preset)), np.uint8)
    batches = (images, 4, game.noise, preset.value_range)
    game.sample = Minibatches(*batches, replacement=preset.replacement)
    ascend_D = preset.optimiser(game.D, preset.lr, 5).step
    descend = preset.optimiser(game.G, preset.lr, 5).step

    def descend_G() -> None:
        descend()
        game.G.update_statistics(game.G_of_z)

    for game.noise.step in (1, 2, 3):
        with standin.launched() as names:
            ORDERS[preset.order](game, ascend_D, descend_G)
    return Counter(names)


@pytest.mark.parametrize("name", MOST)
def test_a_step_takes_few_launches(cupy_standin: Open, name: str) -> None:
    found = launches(name, cupy_standin())
    assert found.total() - found["set_numbers"] <= MOST[name], found


def test_a_layer_of_many_launches_is_noticed(
    cupy_standin: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CupyBackend, "move_statistics", Backend.move_statistics)
    found = launches("mlp-batchnorm", cupy_standin())
    assert found.total() - found["set_numbers"] > MOST["mlp-batchnorm"]
