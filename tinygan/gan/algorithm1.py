"""Algorithm 1 of Goodfellow et al. 2014, and its other orders of play. See docs/algorithm1.md.

One *step* is one update of G, whatever the order.
"""

from __future__ import annotations

from collections.abc import Callable

from tinygan.backend import Array
from tinygan.errors import OptionError, ShapeError
from tinygan.gan.checks import check_players
from tinygan.gan.objectives import Objective
from tinygan.gan.penalties import Penalty, check_penalty, pack_size, per_sample
from tinygan.gan.spread import spread
from tinygan.nn.network import Network
from tinygan.noise import Noise

Update = Callable[[], None]


def paper(game: Game, ascend_D: Update, descend_G: Update, k: int = 1) -> None:
    """One pass through the body of Algorithm 1's outer loop: [alg.1]."""
    for game.noise.sub in range(1, k + 1):  # for k steps do
        z = game.draw_noise()  #   sample minibatch of m noise samples z ~ p_g(z)
        x = game.sample()  #   sample minibatch of m examples x ~ p_data(x)
        game.discriminator_gradient(x, game.fakes(z))
        ascend_D()  #   update D by ascending its stochastic gradient
    game.noise.sub = 0  # end for
    z = game.draw_noise()  # sample minibatch of m noise samples z ~ p_g(z)
    game.generator_gradient(game.fakes(z))
    descend_G()  # update G by descending its stochastic gradient


def simultaneous(game: Game, ascend_D: Update, descend_G: Update, k: int = 1) -> None:
    """Both gradients at the same point, from one pass of D over the fakes: [alg.2].

    "G first, then D on the same detached fakes" is this: D has not moved when G's gradient is
    taken, and G's move does not change the fakes that D sees.
    """
    if k != 1:
        raise OptionError(f"simultaneous play updates both players once a step: k is 1, not {k}")
    game.noise.sub = 1
    z, x = game.draw_noise(), game.sample()
    fakes = game.fakes(z)
    game.discriminator_gradient(x, fakes, slopes=True)
    game.generator_gradient(fakes, judged=True)
    ascend_D()
    descend_G()


def alternating(game: Game, ascend_D: Update, descend_G: Update, k: int = 1) -> None:
    """G first; D then sees the G that has moved: [alg.3]."""
    game.noise.sub = 0
    game.generator_gradient(game.fakes(game.draw_noise()))
    descend_G()
    for game.noise.sub in range(1, k + 1):
        z, x = game.draw_noise(), game.sample()
        game.discriminator_gradient(x, game.fakes(z))
        ascend_D()


ORDERS = {"paper": paper, "simultaneous": simultaneous, "alternating": alternating}


# What a log says of a step:
#   d_loss, g_loss      D's with its penalty, which `penalty` gives by itself
#   d_real, d_fake      mean D(x) and D(G(z)), probabilities of "real" also where labels are
#                       flipped; mean scores where the objective makes a critic of D
#   acc_real, acc_fake  the shares of real and of fake samples that D told right
#   g_gradient          length of the gradient of G's loss on all of G's parameters
#   spread              how far apart fakes are, beside how far apart real samples are
METRICS = (
    *("d_loss", "g_loss", "d_real", "d_fake", "acc_real", "acc_fake"),
    *("penalty", "g_gradient", "spread"),
)

LARGEST_FACTOR = 1e6  # of G's gradient on a logit to D's; float32's digits survive it well


class Game:
    """G, D, what they want and what they are shown: V(D, G) of equation 1 [game.1], two verbs.

    Each verb leaves a *loss* gradient in one player's `gradients`: going down D's loss is
    ascending V. Neither touches the other player: "freezing" D is not giving it an update.
    """

    def __init__(
        self,
        G: Network,
        D: Network,
        objective: Objective,
        draw_noise: Callable[[], Array],
        sample: Callable[[], Array],
        noise: Noise,
        draw_labels: Callable[[], Array] | None = None,
        labels_of_x: Callable[[], Array] | None = None,
        combined: bool = False,
        penalty: Penalty | None = None,
        instance_noise: float = 0.0,
    ) -> None:
        """`draw_noise()` gives z (m, latent) and `sample()` gives x (m, H, W, C), both as
        functions of where `noise` stands.

        With labels the game is conditional [cond.6]: `draw_labels()` gives those to ask of G, again
        by `noise`, and `labels_of_x()` those of the x last sampled, integers (m,). `combined`: D
        judges fakes and reals as one batch [alg.6], not as two.

        `penalty` on D's slope is a part of D's loss [gp.1]. `instance_noise` is the standard
        deviation of normal noise on everything that D sees: [alg.7].
        """
        if (draw_labels is None) != (labels_of_x is None):
            raise OptionError("a conditional game needs both, labels to ask for and labels of x")
        check_players(G, D)
        if penalty is not None:
            check_penalty(D)
        self.G, self.D, self.objective = G, D, objective
        self.draw_noise, self.sample, self.noise = draw_noise, sample, noise
        self.draw_labels, self.labels_of_x, self.combined = draw_labels, labels_of_x, combined
        self.penalty, self.instance_noise = penalty, instance_noise
        # Call sites: each pass whose activations must live at the same time has its own memory.
        self.G_of_z = G.cache("G(z)", noise=noise)
        self.D_of_x = D.cache("D(x)", noise=noise)
        self.D_of_fakes = D.cache("D(G(z))", noise=noise)
        self.D_of_both = D.cache("D(G(z), x)", noise=noise)
        self.D_of_x_hat = D.cache("D(x_hat)", noise=noise)
        self._losses = D.cache("losses", noise=noise)
        # Whether both players' gradients on a fake are multiples of one slope: [alg.8]. To see if
        # the factors are sound one looks at them, for which a GPU would have to be waited for.
        coupled = any(layer.couples_samples for _, layer in D.layers())
        self._proportional = not coupled and D.backend.instant
        self._slopes: tuple[Array, Array] | None = None

    def fakes(self, z: Array) -> Array:
        """G(z) (m, H, W, C), a loan until the next call; in a conditional game G(z | labels)."""
        if self.draw_labels is not None:
            self.G_of_z.condition = self.draw_labels()
        return self.G.forward(z, self.G_of_z)

    def discriminator_gradient(self, x: Array, fakes: Array, slopes: bool = False) -> None:
        """D.gradients = gradient of D's loss; G is not involved, its output is data: [alg.4].

        `slopes`: G's turn comes next, on these fakes, and may want what D's loss says of them.
        """
        self.x, self.made = x, fakes
        self.shown_x, self.shown = self._noisy(x, "x"), self._noisy(fakes, "G(z)")
        judge = self._judge_together if self.combined else self._judge_apart
        self.real_logits, self.fake_logits = judge(self.shown_x, self.shown)
        self.d_loss, d_real, d_fake = self.objective.discriminator(
            self.real_logits, self.fake_logits, self._losses
        )
        self.D.gradients.fill(0)
        slopes = slopes and self._proportional
        if self.combined:
            d_both = self._joined("d", d_fake, d_real)
            d_inputs = self.D.backward(d_both, self.D_of_both, input_grad=slopes)
            d_fakes = d_inputs[: len(fakes)] if slopes else None
        else:
            self.D.backward(d_real, self.D_of_x, input_grad=False)
            d_fakes = self.D.backward(d_fake, self.D_of_fakes, input_grad=slopes)
        # Copies: the penalty's passes and G's loss may write where these lie.
        self._slopes = (self._copy("d", d_fake), self._copy("dx", d_fakes)) if slopes else None
        if self.penalty is not None:
            self._penalise(self.penalty)

    def update_statistics_of_D(self) -> None:
        """BatchNorm's running statistics take in what D saw in its turn, x and fakes alike: [bn.4].

        They are not used here, where D is always asked in training mode, but by whoever takes the
        D of a checkpoint and asks it about one image.
        """
        for seen in (self.D_of_both,) if self.combined else (self.D_of_x, self.D_of_fakes):
            self.D.update_statistics(seen)

    def _penalise(self, penalty: Penalty) -> None:
        """D's loss and D.gradients take in the penalty; fakes keep their labels in it, all else has
        those of x."""
        if self.labels_of_x is not None:
            of_fakes = penalty.at == "fakes"
            self.D_of_x_hat.condition = self.G_of_z.condition if of_fakes else self.labels_of_x()
        self.d_penalty = penalty.add_gradient(self.D, self.shown_x, self.shown, self.D_of_x_hat)
        self.d_loss = self.d_loss + self.d_penalty

    def generator_gradient(self, fakes: Array, judged: bool = False) -> None:
        """G.gradients = gradient of G's loss, through D: [alg.5].

        `judged`: D's pass over these fakes (dropout masks included) is already at hand.
        """
        # G's turn and D's never overlap, so D's passes over fakes can share one call site.
        if not judged:
            self.made, self.shown = fakes, self._noisy(fakes, "G(z)")
        logits = self.fake_logits if judged else self._judge_fakes(self.shown)
        self.g_loss, d_logits = self.objective.generator(logits, self._losses)
        d_fakes = self._rescaled(d_logits) if judged else None
        if d_fakes is None and judged and self.combined:
            d_fakes = self._fakes_part(d_logits, fakes)
        elif d_fakes is None:
            d_fakes = self.D.backward(d_logits, self.D_of_fakes, param_grads=False)
        self.G.gradients.fill(0)
        self.G.backward(d_fakes, self.G_of_z, input_grad=False)

    # ---- how D is called -----------------------------------------------------------------------

    def _noisy(self, seen: Array, name: str) -> Array:
        """What D sees of it: with instance noise (Sønderby et al. 2017), whose Jacobian is 1."""
        if self.instance_noise == 0.0:
            return seen
        out = self._losses.like(f"noisy {name}", seen)
        out[...] = self.noise.normal(f"instance noise/{name}", seen.shape, self.instance_noise)
        out += seen  # [alg.7]
        return out

    def _judge_fakes(self, fakes: Array) -> Array:
        """D's logits of the fakes, under the labels that G was asked for."""
        if self.draw_labels is not None:
            self.D_of_fakes.condition = self.G_of_z.condition
        return self.D.forward(fakes, self.D_of_fakes)

    def _judge_apart(self, x: Array, fakes: Array) -> tuple[Array, Array]:
        """D's logits of x and of the fakes, from two passes."""
        if self.labels_of_x is not None:
            self.D_of_x.condition = self.labels_of_x()
        real = self.D.forward(x, self.D_of_x)
        fake = self._losses.new("D(G(z))", real.shape)
        fake[...] = self._judge_fakes(fakes)
        return real, fake

    def _judge_together(self, x: Array, fakes: Array) -> tuple[Array, Array]:
        """The same from one pass over [fakes, x], one batch to BatchNorm: [alg.6]."""
        if len(fakes) % (pack := pack_size(self.D)):
            raise ShapeError(f"{len(fakes)} fakes make no packs of {pack}: D would mix them with x")
        if self.labels_of_x is not None:
            asked, told = self.G_of_z.condition, self.labels_of_x()
            both = self._losses.new("both: labels", (len(asked) + len(told),), asked.dtype)
            both[: len(asked)], both[len(asked) :] = asked, told
            self.D_of_both.condition = both
        logits = self.D.forward(self._joined("x", fakes, x), self.D_of_both)
        n = len(logits) // 2  # a packed D answers less often than it is asked
        return logits[n:], logits[:n]

    def _rescaled(self, d_logits: Array) -> Array | None:
        """d_fakes without a pass through D, from what D's loss said of the same fakes: [alg.8].

        None if that was not kept, or where D is so sure that nothing is left to be multiplied.
        """
        if self._slopes is None:
            return None
        d_fake, slopes = self._slopes
        if not bool((abs(d_logits) < LARGEST_FACTOR * abs(d_fake)).all()):
            return None
        factor = per_sample((d_logits / d_fake)[:, 0], slopes, self._losses)
        return self.D.backend.xp.multiply(slopes, factor, out=self._losses.like("d_fakes", slopes))

    def _copy(self, name: str, a: Array) -> Array:
        copy = self._losses.like(f"slopes: {name}", a)
        copy[...] = a
        return copy

    def _fakes_part(self, d_logits: Array, fakes: Array) -> Array:
        """d_fakes through D's pass over both; G's loss does not look at the logits of x."""
        nothing = self._losses.new("nothing", self.real_logits.shape)
        nothing.fill(0)
        d_both = self._joined("d", d_logits, nothing)
        d_inputs = self.D.backward(d_both, self.D_of_both, param_grads=False)
        d_fakes = self._losses.like("d_fakes", fakes)
        d_fakes[...] = d_inputs[: len(fakes)]
        return d_fakes

    def _joined(self, name: str, fakes: Array, reals: Array) -> Array:
        """One batch of both, fakes first."""
        n, losses = len(fakes), self._losses
        new = losses.images if fakes.ndim == 4 else losses.new
        both = new(f"both: {name}", (n + len(reals), *fakes.shape[1:]))
        both[:n], both[n:] = fakes, reals
        return both

    def metrics(self) -> dict[str, float]:
        """What the last step saw, as Python numbers (on a GPU this waits for the device)."""
        numbers = self.D.backend.to_host(self.measure())
        return dict(zip(METRICS, numbers.tolist(), strict=True))

    def measure(self) -> Array:
        """METRICS of the last step as a row on the backend, float64; a loan until the next call."""
        real, fake = self.real_logits, self.fake_logits
        if self.objective.flipped:
            real, fake = -real, -fake
        p_real, p_fake, threshold = real, fake, self.objective.threshold
        if self.objective.probability:
            sigmoid, new = self.D.backend.sigmoid, self._losses.new
            p_real = sigmoid(real, out=new("p_real", real.shape))
            p_fake = sigmoid(fake, out=new("p_fake", fake.shape))
        if threshold is None:  # a critic is known up to a constant
            threshold = 0.5 * (real.mean() + fake.mean())
        xp, gradient = self.D.backend.xp, self.G.gradients
        row = self._losses.new("metrics", (len(METRICS),), "float64")
        row[0], row[1] = self.d_loss, self.g_loss
        row[2], row[3] = p_real.mean(), p_fake.mean()
        row[4], row[5] = (real > threshold).mean(), (fake <= threshold).mean()
        row[6] = 0.0 if self.penalty is None else self.d_penalty
        row[7] = xp.sqrt((gradient * gradient).sum())
        row[8] = spread(self.made, self.x, self.D.backend)
        return row

    def first_nonfinite(self) -> str | None:
        """Where the first NaN or infinity stands, in words: parameters, then activations."""
        sites = (self.G_of_z, self.D_of_x, self.D_of_fakes, self.D_of_both, self.D_of_x_hat)
        found = self.G.first_nonfinite() or self.D.first_nonfinite()
        return found or next(filter(None, (site.first_nonfinite() for site in sites)), None)
