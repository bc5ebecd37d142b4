// See chart.hpp.
#include "report/chart.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "report/axes.hpp"
#include "report/format.hpp"

namespace align {
namespace {

// The drawing's own units; the page scales it.
constexpr double width = 460, height = 236;
constexpr double left = 52, right = 450, top = 10, bottom = 200;
constexpr std::size_t most_points = 300;  // more than that no eye can tell apart

using points = std::vector<point>;

points finite(const points& run) {
  points kept;
  for (const point& p : run) {
    if (std::isfinite(p.x) && std::isfinite(p.y)) kept.push_back(p);
  }
  return kept;
}

point mean(std::span<const point> some) {
  point sum{0, 0};
  for (const point& p : some) sum.x += p.x, sum.y += p.y;
  const double count = static_cast<double>(some.size());
  return {sum.x / count, sum.y / count};
}

// At most `most_points` points, each the mean of its neighbours.
points thinned(const points& run) {
  if (run.size() <= most_points) return run;
  points out;
  for (std::size_t i = 0; i < most_points; ++i) {
    const std::size_t from = i * run.size() / most_points;
    const std::size_t to = (i + 1) * run.size() / most_points;
    out.push_back(mean(std::span(run).subspan(from, to - from)));
  }
  return out;
}

// Mean over the seeds, then over a window of a fifteenth of the run.
points smoothed_mean(const std::vector<points>& runs) {
  points all;
  for (const points& run : runs) all.insert(all.end(), run.begin(), run.end());
  std::ranges::stable_sort(all, {}, &point::x);
  points over_seeds;
  for (std::size_t i = 0; i < all.size();) {
    std::size_t end = i;
    while (end < all.size() && all[end].x == all[i].x) ++end;
    over_seeds.push_back(mean(std::span(all).subspan(i, end - i)));
    i = end;
  }
  const std::size_t reach = over_seeds.size() / 30;
  points smooth;
  for (std::size_t i = 0; i < over_seeds.size(); ++i) {
    const std::size_t from = i - std::min(reach, i);
    const std::size_t to = std::min(i + reach + 1, over_seeds.size());
    const point m = mean(std::span(over_seeds).subspan(from, to - from));
    smooth.push_back({over_seeds[i].x, m.y});
  }
  return smooth;
}

class frame {
 public:
  frame(const axis_range& x, const axis_range& y) : x_(x), y_(y) {}

  std::string x(double value) const { return scaled(value, x_, left, right); }
  std::string y(double value) const { return scaled(value, y_, bottom, top); }

  std::string path(const points& run, const std::string& css_class) const {
    std::string out = "<path class=\"" + css_class + "\" d=\"";
    for (std::size_t i = 0; i < run.size(); ++i) {
      out += i == 0 ? 'M' : 'L';
      out += x(run[i].x) + " " + y(run[i].y);
    }
    return out + "\"/>";
  }

  std::string axes(const std::string& x_label) const {
    std::string out;
    const double y_step = tick_step(y_, 5), x_step = std::max(1.0, tick_step(x_, 5));
    for (double at = std::ceil(y_.low / y_step) * y_step; at <= y_.high; at += y_step) {
      const bool zero = std::abs(at) < 1e-9 * y_step;
      out += "<path class=\"" + std::string(zero ? "zero" : "grid") + "\" d=\"M" + fixed(left, 0) +
             " " + y(at) + "H" + fixed(right, 0) + "\"/><text class=\"tick\" x=\"" +
             fixed(left - 6, 0) + "\" y=\"" + y(at) + "\" dy=\"4\" text-anchor=\"end\">" +
             fixed(at, tick_decimals(y_step)) + "</text>";
    }
    for (double at = std::ceil(x_.low / x_step) * x_step; at <= x_.high; at += x_step) {
      out += "<text class=\"tick\" x=\"" + x(at) + "\" y=\"" + fixed(bottom + 16, 0) +
             "\" text-anchor=\"middle\">" + fixed(at, 0) + "</text>";
    }
    return out + "<text class=\"tick\" x=\"" + fixed(right, 0) + "\" y=\"" + fixed(height - 6, 0) +
           "\" text-anchor=\"end\">" + escape_html(x_label) + "</text>";
  }

 private:
  static std::string scaled(double value, const axis_range& r, double at_low, double at_high) {
    return fixed(at_low + (value - r.low) / (r.high - r.low) * (at_high - at_low), 1);
  }

  axis_range x_, y_;
};

}  // namespace

std::string chart(const std::string& title, const std::string& x_label,
                  std::span<const curve> curves) {
  struct drawing {
    const curve* what;
    std::vector<points> thin;
    points thick;
  };
  std::vector<drawing> drawings;
  axis_range xs, ys;
  for (const curve& c : curves) {
    drawing d{&c, {}, {}};
    std::vector<points> runs;
    for (const points& run : c.runs) {
      runs.push_back(finite(run));
      d.thin.push_back(thinned(runs.back()));
      for (const point& p : d.thin.back()) xs.include(p.x), ys.include(p.y);
    }
    d.thick = thinned(smoothed_mean(runs));
    if (!d.thick.empty()) drawings.push_back(std::move(d));
  }
  if (drawings.empty()) return "";
  if (!(xs.high > xs.low)) xs.widen(0);
  ys.widen(0.05);

  const frame f(xs, ys);
  std::string legend, thin, thick;
  for (const drawing& d : drawings) {
    const std::string& css = d.what->css_class;
    legend += "<span class=\"key " + css + "\">" + escape_html(d.what->label) + " <b>" +
              fixed(d.what->end, 3) + "</b></span>";
    for (const points& run : d.thin) {
      if (!run.empty()) thin += f.path(run, "thin " + css);
    }
    thick += f.path(d.thick, "thick " + css);
  }
  return "<figure><figcaption>" + escape_html(title) + "<div class=\"legend\">" + legend +
         "</div></figcaption><svg viewBox=\"0 0 " + fixed(width, 0) + " " + fixed(height, 0) +
         "\" role=\"img\" aria-label=\"" + escape_html(title) + " by " + escape_html(x_label) +
         "\">" + f.axes(x_label) + thin + thick + "</svg></figure>\n";
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace align
