// Line charts as inline SVG, coloured by the CSS classes of the page around them. The thin lines
// are what was measured, one per seed; the thick one is their mean, smoothed.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace align {

struct point {
  double x, y;
};

struct curve {
  std::string label;
  std::string css_class;
  std::vector<std::vector<point>> runs;  // one per seed; points that are not finite are left out
  double end;                            // what the legend says it came to
};

// A <figure> with title, legend and SVG; empty when no curve has a point.
std::string chart(const std::string& title, const std::string& x_label,
                  std::span<const curve> curves);

// Text as HTML content or as an attribute value.
std::string escape_html(std::string_view text);

}  // namespace align
