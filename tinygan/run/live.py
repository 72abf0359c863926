"""A window that shows a picture as it changes, on machines that have a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Window:
    """A window with an empty `figure`: draw in it, then `show()`.

    Closing the window stops the showing, not the program.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure

    @property
    def open(self) -> bool:
        """Whether it is still there."""
        import matplotlib.pyplot as plt

        return plt.fignum_exists(self.figure.number)  # type: ignore[attr-defined, no-any-return, unused-ignore]

    def show(self) -> None:
        """Bring what was drawn to the screen, and let the window answer the mouse."""
        if self.open:
            self.figure.canvas.draw_idle()
            self.figure.canvas.start_event_loop(0.001)

    def wait(self) -> None:
        """Return when the window is closed."""
        while self.open:
            self.figure.canvas.start_event_loop(0.1)


def open_window(width: float, height: float) -> Window | None:
    """A new window of so many inches; None where there is no screen."""
    import matplotlib.pyplot as plt  # only here: it may open a connection to the display

    try:
        figure = plt.figure(figsize=(width, height))
    except (ImportError, RuntimeError):
        return None  # a backend was asked for by name that has no screen to show anything on
    if getattr(figure.canvas, "required_interactive_framework", None) is None:
        plt.close(figure)
        return None
    plt.show(block=False)
    return Window(figure)
