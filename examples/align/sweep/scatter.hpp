// Gain against drift as inline SVG, coloured by the CSS of the page around it. A loss is told by
// its colour, by the shape of its marks, and by the line that joins its values in their order.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace align {

enum class dot_state { sound, doubtful, collapsed };

struct dot {
  double x, y;
  double x_error, y_error;  // NaN: not known
  std::string label;        // beside it, where there is room
  std::string title;        // for who points at it
  dot_state state = dot_state::sound;
  bool on_frontier = false;
};

struct dot_series {
  std::string label;
  std::vector<dot> dots;
};

// A <figure> with title, legend and SVG; empty when no dot is finite. The drift is drawn in powers
// of ten where it is above 0 and spans more than a factor of 8.
std::string scatter(const std::string& title, const std::string& x_label,
                    std::span<const dot_series> series);

// What a page with scatters needs.
std::string_view scatter_style();

}  // namespace align
