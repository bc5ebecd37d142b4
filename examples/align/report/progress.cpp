// See progress.hpp.
#include "report/progress.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <utility>

#include "report/format.hpp"

namespace align {
namespace {

constexpr std::chrono::milliseconds redraw_every{100};

int descriptor_of(const std::ostream& out) {
  if (&out == &std::cout) return STDOUT_FILENO;
  if (&out == &std::cerr || &out == &std::clog) return STDERR_FILENO;
  return -1;
}

bool is_terminal(const std::ostream& out) {
  const int descriptor = descriptor_of(out);
  return descriptor >= 0 && isatty(descriptor) == 1;
}

std::size_t terminal_columns(const std::ostream& out) {
  winsize size{};
  const bool known = ioctl(descriptor_of(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

// Cut to a number of characters, never inside one. A line that wraps cannot be redrawn.
std::string clipped(const std::string& text, std::size_t width) {
  std::size_t bytes = 0, used = 0;
  while (bytes < text.size()) {
    const bool starts_character = (static_cast<unsigned char>(text[bytes]) & 0xc0) != 0x80;
    if (starts_character && used++ == width) break;
    ++bytes;
  }
  return text.substr(0, bytes);
}

double share_done(const step_record& record, int steps) {
  return steps > 0 ? std::clamp(static_cast<double>(record.step) / steps, 0.0, 1.0) : 1.0;
}

std::string bar(double share, int width) {
  const int full = static_cast<int>(share * width);
  std::string out;
  for (int i = 0; i < width; ++i) out += i < full ? "█" : "░";
  return out;
}

std::string duration(double seconds) {
  const long all = std::lround(std::min(seconds, 99.0 * 3600));
  if (all < 60) return std::to_string(all) + " s";
  if (all < 3600) return std::to_string(all / 60) + " min " + std::to_string(all % 60) + " s";
  return std::to_string(all / 3600) + " h " + std::to_string(all % 3600 / 60) + " min";
}

void append(std::string& line, std::string_view label, double value, int decimals) {
  if (!std::isnan(value)) line += std::string(label) + " " + fixed(value, decimals);
}

// Two values that belong together; a missing one is "-".
void append_both(std::string& line, std::string_view label, double first, double second) {
  if (std::isnan(first) && std::isnan(second)) return;
  line += std::string(label) + " " + fixed(first, 2) + "/" + fixed(second, 2);
}

}  // namespace

std::string progress_line(std::string_view phase, int steps, const step_record& record,
                          double seconds_left, std::string_view extra) {
  const double share = share_done(record, steps);
  std::string line = std::string(phase) + " " + bar(share, 10) + " " + pad_left(percent(share), 5);
  // First what is wanted most: what does not fit is cut at the end.
  if (!std::isnan(seconds_left)) line += "  " + duration(seconds_left) + " left";
  append(line, "  loss", record.loss, 3);
  append_both(line, "  reward +/-", record.reward_desirable, record.reward_undesirable);
  append(line, "  margin", record.margin, 2);
  append_both(line, "  z/raw", record.z, record.z_raw);
  append(line, "  tok/s", record.tokens_per_second, 0);
  if (!extra.empty()) line += "  " + std::string(extra);
  return line;
}

std::string narrow_progress_line(std::string_view phase, int steps, const step_record& record,
                                 double seconds_left) {
  const double share = share_done(record, steps);
  const std::size_t last_word = phase.rfind(' ') + 1;  // npos + 1 is 0
  std::string line = std::string(phase.substr(last_word)) + " " + bar(share, 4) + " " +
                     pad_left(percent(share), 4);
  std::string left = duration(seconds_left);
  std::erase(left, ' ');
  line += " " + left;
  append(line, " loss", record.loss, 2);
  append_both(line, " r", record.reward_desirable, record.reward_undesirable);
  append(line, " m", record.margin, 2);
  append_both(line, " z", record.z, record.z_raw);
  if (!std::isnan(record.tokens_per_second)) {
    line += " " + fixed(record.tokens_per_second / 1000, 0) + "k/s";
  }
  return line;
}

progress::progress(std::string phase, int steps, std::ostream& out)
    : phase_(std::move(phase)),
      steps_(steps),
      out_(out),
      terminal_(is_terminal(out)),
      started_(clock::now()) {}

void progress::update(const step_record& record, std::string_view extra) {
  if (first_step_ == 0) first_step_ = record.step;
  last_ = record;
  extra_ = extra;
  open_ = true;
  shown_ = false;
  if (terminal_) {
    if (clock::now() - drawn_ >= redraw_every) draw();
  } else {
    const int due = static_cast<int>(share_done(record, steps_) * 10);
    if (due > tenths_printed_) {
      tenths_printed_ = due;
      draw();
    }
  }
}

void progress::finish() {
  if (!open_) return;
  if (terminal_) {
    draw();
    out_ << '\n' << std::flush;
  } else if (!shown_) {
    draw();
  }
  open_ = false;
}

void progress::draw() {
  const std::chrono::duration<double> elapsed = clock::now() - started_;
  const double done_here = last_.step - first_step_ + 1;
  const double left = elapsed.count() / done_here * std::max(0, steps_ - last_.step);
  const std::string line = progress_line(phase_, steps_, last_, left, extra_);
  if (terminal_) {
    constexpr std::string_view clear_to_end = "\x1b[K";
    const std::size_t room = terminal_columns(out_) - 1;
    const std::string fitting =
        columns(line) > room ? narrow_progress_line(phase_, steps_, last_, left) : line;
    out_ << '\r' << clipped(fitting, room) << clear_to_end << std::flush;
  } else {
    out_ << line << '\n' << std::flush;
  }
  drawn_ = clock::now();
  shown_ = true;
}

}  // namespace align
