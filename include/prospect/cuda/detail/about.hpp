// Texts of checks: what is wrong, behind the name of what it is wrong with, put together by the
// compiler, so that a check hands out a text that outlives it and allocates nothing.
#pragma once

#include <prospect/any_row.hpp>

#include <cstddef>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cuda::detail {

template <std::size_t n>
struct words {
  char text[n]{};
  constexpr words(const char (&from)[n]) {
    for (std::size_t i = 0; i < n; ++i) text[i] = from[i];
  }
};

template <words name, words what>
struct name_and_what {
  char text[sizeof(name.text) + sizeof(what.text)]{};
  constexpr name_and_what() {
    std::size_t at = 0;
    for (const char c : name.text) text[at++] = c;
    text[at - 1] = ' ';
    for (const char c : what.text) text[at++] = c;
  }
};
template <words name, words what>
inline constexpr name_and_what<name, what> about;

/// Why a row is no description of memory on any device, or nullptr.
template <words name, class Row>
const char* memory_problem(const Row& row) {
  if (row.size() < 0) return about<name, "has a negative size">.text;
  if (prospect::detail::view_problem(row) == nullptr) return nullptr;
  return row.data() == nullptr ? about<name, "has no data">.text
                               : about<name, "is misaligned, or larger than any memory">.text;
}

/// Of an input that must be there, with an element for each of n rows.
template <words name, class Row>
const char* input_problem(const Row& row, std::int64_t n) {
  if (row.size() != n) return about<name, "must have an element for each row of the batch">.text;
  return memory_problem<name>(row);
}
/// Of one that may be left out.
template <words name, class Row>
const char* option_problem(const Row& row, std::int64_t n) {
  return row.empty() ? nullptr : input_problem<name>(row, n);
}
/// Of an output, which may be left out, and has a place of its own for each row.
template <words name, class Row>
const char* output_problem(const Row& row, std::int64_t n) {
  if (const char* why = option_problem<name>(row, n)) return why;
  if (row.size() < 2 || row.stride() != 0) return nullptr;
  return about<name, "has stride 0: every result would overwrite the last">.text;
}

/// The first problem that there is.
template <class... Problems>
const char* first_of(Problems... problems) {
  const char* first = nullptr;
  ((first = first != nullptr ? first : problems), ...);
  return first;
}

}  // namespace prospect::inline v1::cuda::detail
PROSPECT_STRICT_END
