// See scatter.hpp.
#include "sweep/scatter.hpp"

#include <algorithm>
#include <cmath>

#include "report/axes.hpp"
#include "report/chart.hpp"
#include "report/format.hpp"

namespace align {
namespace {

// The drawing's own units; the page scales it.
constexpr double width = 460, height = 340;
constexpr double left = 52, right = 448, top = 12, bottom = 304;
constexpr double wide_span = 8;  // from here on, equal steps would leave the small drifts no room
constexpr double radius = 3.6;
constexpr double letter_width = 5.2, letter_height = 9;

// Colours that stay apart for the colour-blind (after Okabe and Ito), shapes for everyone else.
constexpr std::size_t kinds = 5;
constexpr const char* shapes[kinds] = {"●", "■", "▲", "◆", "▼"};

bool finite(const dot& d) { return std::isfinite(d.x) && std::isfinite(d.y); }

std::string number(double x) { return fixed(x, 1); }

struct box {
  double left, top, right, bottom;

  bool meets(const box& o) const {
    return left < o.right && o.left < right && top < o.bottom && o.top < bottom;
  }
};

class plane {
 public:
  plane(const axis_range& x, const axis_range& y, bool powers) : x_(x), y_(y), powers_(powers) {}

  double x(double value) const {
    if (powers_ && !(value > 0)) return left;
    const double at = powers_ ? std::log10(value) : value;
    const double inside = left + (at - x_.low) / (x_.high - x_.low) * (right - left);
    return std::clamp(inside, left, right);
  }

  double y(double value) const {
    const double inside = bottom + (value - y_.low) / (y_.high - y_.low) * (top - bottom);
    return std::clamp(inside, top, bottom);
  }

  std::string axes(const std::string& x_label) const {
    std::string out;
    const double y_step = tick_step(y_, 6);
    for (double at = std::ceil(y_.low / y_step) * y_step; at <= y_.high; at += y_step) {
      out += "<path class=\"grid\" d=\"M" + number(left) + " " + number(y(at)) + "H" +
             number(right) + "\"/>" +
             tick(left - 6, y(at) + 4, "end", fixed(at, tick_decimals(y_step)));
    }
    for (const auto& [at, text] : powers_ ? power_ticks() : even_ticks()) {
      out += "<path class=\"grid\" d=\"M" + number(x(at)) + " " + number(top) + "V" +
             number(bottom) + "\"/>" + tick(x(at), bottom + 16, "middle", text);
    }
    return out + tick(right, height - 4, "end", x_label);
  }

 private:
  struct mark {
    double at;
    std::string text;
  };

  static std::string tick(double x, double y, const char* anchor, const std::string& text) {
    return "<text class=\"tick\" x=\"" + number(x) + "\" y=\"" + number(y) + "\" text-anchor=\"" +
           anchor + "\">" + escape_html(text) + "</text>";
  }

  std::vector<mark> even_ticks() const {
    std::vector<mark> out;
    const double step = tick_step(x_, 6);
    for (double at = std::ceil(x_.low / step) * step; at <= x_.high; at += step) {
      out.push_back({at, fixed(at, tick_decimals(step))});
    }
    return out;
  }

  std::vector<mark> power_ticks() const {
    std::vector<mark> out;
    for (int power = static_cast<int>(std::floor(x_.low)); power <= x_.high; ++power) {
      for (const double digit : {1.0, 2.0, 5.0}) {
        const double at = digit * std::pow(10, power);
        if (std::log10(at) < x_.low || std::log10(at) > x_.high) continue;
        out.push_back({at, fixed(at, std::max(0, -power))});
      }
    }
    return out;
  }

  axis_range x_, y_;  // of x in powers of ten: of the logarithms
  bool powers_;
};

std::string outline(std::size_t kind, double x, double y) {
  const auto at = [&](double dx, double dy) { return number(x + dx) + " " + number(y + dy); };
  const double r = radius;
  switch (kind) {
    case 0:
      return "M" + at(-r, 0) + "a" + number(r) + " " + number(r) + " 0 1 0 " + number(2 * r) +
             " 0a" + number(r) + " " + number(r) + " 0 1 0 " + number(-2 * r) + " 0z";
    case 1:
      return "M" + at(-r, -r) + "L" + at(r, -r) + "L" + at(r, r) + "L" + at(-r, r) + "z";
    case 2:
      return "M" + at(0, -r - 1) + "L" + at(r + 1, r) + "L" + at(-r - 1, r) + "z";
    case 3:
      return "M" + at(0, -r - 1) + "L" + at(r + 1, 0) + "L" + at(0, r + 1) + "L" + at(-r - 1, 0) +
             "z";
    default:
      return "M" + at(0, r + 1) + "L" + at(r + 1, -r) + "L" + at(-r - 1, -r) + "z";
  }
}

std::string mark(const dot& d, std::size_t kind, const plane& on) {
  const double x = on.x(d.x), y = on.y(d.y);
  std::string out;
  if (d.x_error > 0) {
    out += "<path class=\"error\" d=\"M" + number(on.x(d.x - d.x_error)) + " " + number(y) + "H" +
           number(on.x(d.x + d.x_error)) + "\"/>";
  }
  if (d.y_error > 0) {
    out += "<path class=\"error\" d=\"M" + number(x) + " " + number(on.y(d.y - d.y_error)) + "V" +
           number(on.y(d.y + d.y_error)) + "\"/>";
  }
  out += "<path class=\"" + std::string(d.state == dot_state::sound ? "dot" : "dot hollow") +
         "\" d=\"" + outline(kind, x, y) + "\"><title>" + escape_html(d.title) + "</title></path>";
  if (d.state == dot_state::collapsed) {
    const double r = radius + 2;
    out += "<path class=\"cross\" d=\"M" + number(x - r) + " " + number(y - r) + "L" +
           number(x + r) + " " + number(y + r) + "M" + number(x - r) + " " + number(y + r) + "L" +
           number(x + r) + " " + number(y - r) + "\"/>";
  }
  return out;
}

std::string joined(const std::vector<const dot*>& dots, const char* css, const plane& on) {
  std::string out;
  for (const dot* d : dots) {
    out += (out.empty() ? "M" : "L") + number(on.x(d->x)) + " " + number(on.y(d->y));
  }
  return "<path class=\"" + std::string(css) + "\" d=\"" + out + "\"/>";
}

// Beside its mark, where neither a mark nor a label is yet; "" where there is no such place.
std::string placed_label(const dot& d, const plane& on, std::vector<box>& taken) {
  const double x = on.x(d.x), y = on.y(d.y), away = radius + 3;
  const double wide = letter_width * static_cast<double>(columns(d.label));
  const point corners[] = {{x + away, y - letter_height / 2},
                           {x - wide / 2, y - away - letter_height},
                           {x - wide / 2, y + away},
                           {x - away - wide, y - letter_height / 2}};
  for (const point& c : corners) {
    const box wanted{c.x, c.y, c.x + wide, c.y + letter_height};
    const bool inside =
        wanted.left > left && wanted.right < right + 10 && wanted.top > 0 && wanted.bottom < bottom;
    const bool is_free =
        std::ranges::none_of(taken, [&](const box& other) { return wanted.meets(other); });
    if (!inside || !is_free) continue;
    taken.push_back(wanted);
    return "<text class=\"dot-label\" x=\"" + number(c.x) + "\" y=\"" +
           number(c.y + letter_height - 1.5) + "\">" + escape_html(d.label) + "</text>";
  }
  return "";
}

std::string labels(const std::vector<const dot*>& dots, const plane& on) {
  std::vector<box> taken;
  for (const dot* d : dots) {
    const double x = on.x(d->x), y = on.y(d->y);
    taken.push_back({x - radius, y - radius, x + radius, y + radius});
  }
  std::string out;
  for (const bool first : {true, false}) {  // those of the frontier choose first
    for (const dot* d : dots) {
      if (d->on_frontier == first) out += placed_label(*d, on, taken);
    }
  }
  return out;
}

// Error bars are inside, but for those that powers of ten cannot show.
plane fitting(const std::vector<const dot*>& dots) {
  axis_range xs, ys, with_errors;
  for (const dot* d : dots) {
    const double wide = d->x_error > 0 ? d->x_error : 0, high = d->y_error > 0 ? d->y_error : 0;
    xs.include(d->x);
    for (const double sign : {-1.0, 1.0}) {
      with_errors.include(d->x + sign * wide);
      ys.include(d->y + sign * high);
    }
  }
  const bool powers = xs.low > 0 && xs.high > wide_span * xs.low;
  xs = powers ? axis_range{std::log10(xs.low), std::log10(with_errors.high)} : with_errors;
  xs.widen(0.05);
  ys.widen(0.08);
  return {xs, ys, powers};
}

}  // namespace

std::string scatter(const std::string& title, const std::string& x_label,
                    std::span<const dot_series> series) {
  std::vector<const dot*> all, best;
  for (const dot_series& s : series) {
    for (const dot& d : s.dots) {
      if (!finite(d)) continue;
      all.push_back(&d);
      if (d.on_frontier) best.push_back(&d);
    }
  }
  if (all.empty()) return "";
  std::ranges::stable_sort(best, {}, &dot::x);
  const plane on = fitting(all);
  std::string legend, lines, marks;
  for (std::size_t i = 0; i < series.size(); ++i) {
    const std::string css = "series-" + std::to_string(i % kinds);
    std::vector<const dot*> own;
    std::string drawn;
    for (const dot& d : series[i].dots) {
      if (!finite(d)) continue;
      own.push_back(&d);
      drawn += mark(d, i % kinds, on);
    }
    if (own.empty()) continue;
    legend += "<span><i class=\"" + css + "\">" + shapes[i % kinds] + "</i> " +
              escape_html(series[i].label) + "</span>";
    lines += "<g class=\"" + css + "\">" + joined(own, "way", on) + "</g>";
    marks += "<g class=\"" + css + "\">" + drawn + "</g>";
  }
  legend += "<span>- - frontier</span>";
  return "<figure><figcaption>" + escape_html(title) + "<div class=\"legend\">" + legend +
         "</div></figcaption><svg viewBox=\"0 0 " + fixed(width, 0) + " " + fixed(height, 0) +
         "\" role=\"img\" aria-label=\"" + escape_html(title + " against " + x_label) + "\">" +
         on.axes(x_label) + lines + joined(best, "frontier", on) + marks + labels(all, on) +
         "</svg></figure>\n";
}

std::string_view scatter_style() {
  return R"css(
:root{--series-0:#0072b2;--series-1:#d55e00;--series-2:#008a66;--series-3:#b0508f;--series-4:#8a6d00}
@media (prefers-color-scheme:dark){:root{--series-0:#56b4e9;--series-1:#f0955a;--series-2:#4cc9a0;
--series-3:#e39ac4;--series-4:#e6c84f}}
.series-0{color:var(--series-0)}.series-1{color:var(--series-1)}.series-2{color:var(--series-2)}
.series-3{color:var(--series-3)}.series-4{color:var(--series-4)}
.legend i{font-style:normal}
path.way{stroke:currentColor;opacity:.35}path.error{stroke:currentColor;opacity:.55}
path.dot{fill:currentColor;stroke:currentColor}path.dot.hollow{fill:var(--panel);stroke-width:1.4}
path.cross{stroke:var(--bad);stroke-width:1.4}
path.frontier{stroke:var(--ink);stroke-width:1.4;stroke-dasharray:5 4}
text.dot-label{font-size:9px;fill:var(--ink)}
)css";
}

}  // namespace align
