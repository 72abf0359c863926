"""Train a sine-curve GAN: a game small enough to watch while it is played.

Start:  python examples/train_sine_gan.py [--live]
Family: python examples/train_sine_gan.py --preset sine-family --steps 60000
Go on:  python examples/train_sine_gan.py --resume runs/NAME --steps 30000

--live shows the curves in a window while they form. The run folder keeps the same pictures
(samples/, and as an animation samples.gif) and sweep.png: what each number of z controls.
"""

from __future__ import annotations

from tinygan import Network, Noise, get_backend
from tinygan.gan import ORDERS, clip_weights
from tinygan.presets import SINES
from tinygan.run import load_points, make_game, one_line_errors, open_run, parse_options
from tinygan.run.sine_pictures import watch_curves
from tinygan.run.sine_sweep import sweep_run


def main(argv: list[str] | None = None) -> None:
    options = parse_options(argv, __doc__, SINES, default="sine-curve")
    recipe = options.preset
    backend = get_backend(options.backend, options.dtype, options.precision)
    noise = Noise(options.seed, backend)
    data = load_points(options)

    # The players: z -> 15 points of a curve, curve -> logit. See tinygan/presets/sine.py.
    G_body = recipe.generator(None, recipe.labels)
    D_body = recipe.make_discriminator()
    G = Network(G_body, (recipe.latent,), backend, "G", noise)
    D = Network(D_body, data.example_shape, backend, "D", noise)
    steps_per_epoch = options.steps_per_epoch(len(data))
    G_optimiser = recipe.optimiser(G, recipe.lr, steps_per_epoch)
    D_optimiser = recipe.optimiser(D, recipe.lr, steps_per_epoch)

    # The game: what the players want, and what they are shown.
    game = make_game(recipe, G, D, data, noise)

    # The moves.
    def ascend_D() -> None:
        D_optimiser.step()
        if recipe.clip:
            clip_weights(D, recipe.clip)

    # The frame: run folder, log, pictures of the curves, checkpoints.
    picture = watch_curves(options, data)
    run = open_run(options, data, game, G_optimiser, D_optimiser, draw=picture)
    play = ORDERS[recipe.order]
    step = backend.capture(lambda: play(game, ascend_D, G_optimiser.step, recipe.k))
    for noise.step in run.steps():  # one step is one update of both players
        step()
    sweep_run(options, data, G)  # a picture: each number of z moved, the others held
    picture.wait()


if __name__ == "__main__":
    with one_line_errors():
        main()
