"""Train an MLP GAN: two networks, one game, Algorithm 1.

Start:  python examples/train_mlp_gan.py --preset mlp-batchnorm --steps 3000
Go on:  python examples/train_mlp_gan.py --resume runs/NAME --steps 6000
"""

from __future__ import annotations

import math

from tinygan import Game, Network, Noise, get_backend, make_objective
from tinygan.backend import Array
from tinygan.data import Minibatches, load_dataset
from tinygan.gan import ORDERS
from tinygan.presets import PRESETS
from tinygan.run import make_manifest, one_line_errors, open_run, parse_options


def main(argv: list[str] | None = None) -> None:
    options = parse_options(argv, __doc__, PRESETS)
    recipe = options.preset
    backend = get_backend(options.backend, options.dtype)
    noise = Noise(options.seed, backend)
    data = load_dataset(options.data, "train", options.data_dir).first(recipe.train_images)

    # The players: z -> G -> image, image -> D -> logit. Layers stand in tinygan/presets/mlp.py.
    G = Network(recipe.generator(data.pixel_means()), (recipe.latent,), backend, "G", noise)
    D = Network(recipe.discriminator(), data.image_shape, backend, "D", noise)
    steps_per_epoch = options.steps_per_epoch(len(data))
    G_optimiser = recipe.optimiser(G, recipe.lr, steps_per_epoch)
    D_optimiser = recipe.optimiser(D, recipe.lr, steps_per_epoch)

    # The game: what the players want, and what they are shown.
    def draw_noise() -> Array:
        return recipe.draw_latent(noise, "z", recipe.batch_size)

    objective = make_objective(recipe.objective, recipe.loss, recipe.halved)
    sample = Minibatches(
        data.images,
        recipe.batch_size,
        noise,
        recipe.value_range,
        recipe.k,
        recipe.replacement,
        reach=G.body.reach,
    )
    game = Game(G, D, objective, draw_noise, sample, noise)

    # The moves: an update is the optimiser's; BatchNorm's running statistics follow G.
    def ascend_D() -> None:
        D_optimiser.step()

    def descend_G() -> None:
        G_optimiser.step()
        G.update_statistics(game.G_of_z)

    # A fixed batch of noise, looked at again and again.
    z = recipe.draw_latent(noise.at(step=0), "sample grid", math.prod(recipe.grid))
    look = G.cache("look", train=False)

    run = open_run(
        options,
        make_manifest(options, backend, data),
        parts={"G": G, "D": D, "G_optimiser": G_optimiser, "D_optimiser": D_optimiser},
        game=game,
        sample=lambda: backend.to_host(G.forward(z, look)),
        images=len(data),
    )
    play = ORDERS[recipe.order]
    for noise.step in run.steps():  # one step is one update of G
        play(game, ascend_D, descend_G, recipe.k)


if __name__ == "__main__":
    with one_line_errors():
        main()
