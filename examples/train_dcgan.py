"""Train a DCGAN: the same game, played by convolutional networks.

Start:  python examples/train_dcgan.py --preset dcgan-radford --epochs 5
Labels: python examples/train_dcgan.py --preset dcgan-radford --epochs 5 --conditional
Go on:  python examples/train_dcgan.py --resume runs/NAME --epochs 10
"""

from __future__ import annotations

from tinygan import Network, Noise, get_backend
from tinygan.gan import ORDERS, clip_weights
from tinygan.presets import DCGANS
from tinygan.run import load_images, make_game, one_line_errors, open_run, parse_options


def main(argv: list[str] | None = None) -> None:
    options = parse_options(argv, __doc__, DCGANS)
    recipe = options.preset
    backend = get_backend(options.backend, options.dtype, options.precision)
    noise = Noise(options.seed, backend)
    data = load_images(options)

    # The players: z -> images that grow from 7×7 pixels, images that shrink to one logit.
    # Layers stand in tinygan/presets/dcgan.py, from top to bottom.
    G_body = recipe.generator(data.pixel_means(), recipe.labels)
    D_body = recipe.make_discriminator()
    G = Network(G_body, (recipe.latent,), backend, "G", noise)
    D = Network(D_body, data.image_shape, backend, "D", noise)
    steps_per_epoch = options.steps_per_epoch(len(data))
    G_optimiser = recipe.optimiser(G, recipe.lr, steps_per_epoch)
    D_optimiser = recipe.optimiser(D, recipe.lr, steps_per_epoch)

    # The game: what the players want, and what they are shown.
    game = make_game(recipe, G, D, data, noise)

    # The moves: an update is the optimiser's; BatchNorm's running statistics follow the players.
    def ascend_D() -> None:
        D_optimiser.step()
        game.update_statistics_of_D()
        if recipe.clip:
            clip_weights(D, recipe.clip)

    def descend_G() -> None:
        G_optimiser.step()
        G.update_statistics(game.G_of_z)

    # The frame: run folder, log, sample grids of a fixed batch of noise, checkpoints.
    run = open_run(options, data, game, G_optimiser, D_optimiser)
    play = ORDERS[recipe.order]
    step = backend.capture(lambda: play(game, ascend_D, descend_G, recipe.k))
    for noise.step in run.steps():  # one step is one update of G
        step()


if __name__ == "__main__":
    with one_line_errors():
        main()
