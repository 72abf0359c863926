"""Train a GAN of the plane: one sees everything that it does.

Start:  python examples/train_2d.py --preset ring-best
Worlds: python examples/train_2d.py --preset ring-best --data moons   (or FILE.npy, points (N, 2))
Go on:  python examples/train_2d.py --resume runs/NAME --steps 30000
"""

from __future__ import annotations

from tinygan import Network, Noise, get_backend
from tinygan.gan import ORDERS, clip_weights
from tinygan.presets import PLANES
from tinygan.run import load_points, make_game, one_line_errors, open_run, parse_options


def main(argv: list[str] | None = None) -> None:
    options = parse_options(argv, __doc__, PLANES)
    recipe = options.preset
    backend = get_backend(options.backend, options.dtype, options.precision)
    noise = Noise(options.seed, backend)
    data = load_points(options)

    # The players: z -> G -> point, point -> D -> logit. Layers stand in tinygan/presets/plane.py.
    G_body = recipe.generator(None, recipe.labels)
    D_body = recipe.make_discriminator()
    G = Network(G_body, (recipe.latent,), backend, "G", noise)
    D = Network(D_body, data.example_shape, backend, "D", noise)
    steps_per_epoch = options.steps_per_epoch(len(data))
    G_optimiser = recipe.optimiser(G, recipe.lr, steps_per_epoch)
    D_optimiser = recipe.optimiser(D, recipe.lr, steps_per_epoch)

    # The game: what the players want, and what they are shown.
    game = make_game(recipe, G, D, data, noise)

    # The moves: an update is the optimiser's; BatchNorm's running statistics follow G.
    def ascend_D() -> None:
        D_optimiser.step()
        if recipe.clip:
            clip_weights(D, recipe.clip)

    def descend_G() -> None:
        G_optimiser.step()
        G.update_statistics(game.G_of_z)

    # The frame: run folder, log, pictures of the plane, checkpoints.
    run = open_run(options, data, game, G_optimiser, D_optimiser)
    play = ORDERS[recipe.order]
    step = backend.capture(lambda: play(game, ascend_D, descend_G, recipe.k))
    for noise.step in run.steps():  # one step is one update of G
        step()


if __name__ == "__main__":
    with one_line_errors():
        main()
