// Progress of a long phase: one line that redraws itself on a terminal, a plain line every tenth
// of the way anywhere else (a log file, a pipe).
#pragma once

#include <chrono>
#include <iosfwd>
#include <string>
#include <string_view>

#include "report/report.hpp"

namespace align {

class progress {
 public:
  progress(std::string phase, int steps, std::ostream& out);

  // `record.step` counts from 1. What is NaN is left out. `extra` is appended as it is.
  void update(const step_record& record, std::string_view extra = {});

  // Ends the line with the last state. Called again, or before any update, it does nothing.
  void finish();

 private:
  using clock = std::chrono::steady_clock;

  void draw();

  std::string phase_;
  int steps_;
  std::ostream& out_;
  bool terminal_;
  clock::time_point started_, drawn_;
  step_record last_;
  std::string extra_;
  int first_step_ = 0;  // a resumed run starts late; the time left must not be fooled
  int tenths_printed_ = 0;
  bool open_ = false;   // a line was begun that finish() has to end
  bool shown_ = false;  // the last record is on the screen
};

// The text of one line: bar, loss, rewards, margin, z, tokens per second, time left.
std::string progress_line(std::string_view phase, int steps, const step_record& record,
                          double seconds_left, std::string_view extra);

// The same with so short labels that all of it fits a terminal of 80 columns.
std::string narrow_progress_line(std::string_view phase, int steps, const step_record& record,
                                 double seconds_left);

}  // namespace align
