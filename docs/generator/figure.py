"""Two small charts beside each other, the loss and its slope, as SVG. The same bytes on every machine:
coordinates are rounded, and ties are kept away from where rounding decides."""

import math
from dataclasses import dataclass

BLUE, ORANGE, GREY = "#3b7dd8", "#d9730d", "#8a8a8a"  # legible on white and on black
WIDTH, HEIGHT = 150, 84
LEFT, TOP, STEP = 34, 14, 194  # of the first panel's corner; from panel to panel


@dataclass
class Line:
    values: list  # over the whole width, evenly spaced
    colour: str


def coordinate(value):
    # Straight lines hit halves of the last digit exactly, and a last bit would then choose a side.
    return f"{value + 3e-6:.1f}"


def number(value):
    text = f"{value:.3g}"
    return "0" if float(text) == 0 else text.replace("e-0", "e-").replace("e+0", "e")


def bounds(lines):
    """The lowest and the highest value, with 0 between them or at an end."""
    finite = [v for line in lines for v in line.values if math.isfinite(v)]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    return (low, high) if high > low else (low, low + 1)


def path(values, place):
    """A curve, interrupted where it is not finite."""
    drawn, pen = [], "M"
    for i, value in enumerate(values):
        if math.isfinite(value):
            drawn.append(pen + place(i, value))
            pen = "L"
        else:
            pen = "M"
    return " ".join(drawn)


def panel(title, lines, ends, left):
    low, high = bounds(lines)
    bottom, right = TOP + HEIGHT, left + WIDTH

    def across(share):
        return left + WIDTH * share

    def up(value):
        return bottom - HEIGHT * (value - low) / (high - low)

    def place(i, value):
        return f"{coordinate(across(i / (len(lines[0].values) - 1)))} {coordinate(up(value))}"

    def text(x, y, anchor, what):
        return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{what}</text>'

    zero_x = coordinate(across(-ends[0] / (ends[1] - ends[0])))
    zero_y = coordinate(up(0.0))
    yield f'<path d="M{left} {zero_y}H{right}M{zero_x} {TOP}V{bottom}" stroke="{GREY}" stroke-width=".6"/>'
    for line in lines:
        yield f'<path d="{path(line.values, place)}" stroke="{line.colour}" stroke-width="1.5"/>'
    yield f'<g fill="{GREY}">'
    yield text(left + WIDTH // 2, TOP - 5, "middle", title)
    yield text(left - 3, TOP + 6, "end", number(high))
    yield text(left - 3, bottom, "end", number(low))
    yield text(left, bottom + 10, "start", number(ends[0]))
    yield text(right, bottom + 10, "end", number(ends[1]))
    yield "</g>"


def svg(title, ends, losses, slopes):
    """`losses` and `slopes` are Lines over the interval `ends`."""
    width, height = LEFT + STEP + WIDTH + 4, TOP + HEIGHT + 14
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" fill="none" font-family="sans-serif" font-size="8">',
        f"<title>{title}</title>",
        *panel("loss", losses, ends, LEFT),
        *panel("slope", slopes, ends, LEFT + STEP),
        "</svg>", ""])
