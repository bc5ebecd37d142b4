// Texts of checks: what is wrong, behind the name of what it is wrong with, put together by the
// compiler, so that a check hands out a text that outlives it and allocates nothing.
#pragma once

#include <prospect/any_row.hpp>

#include <cstddef>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

template <std::size_t n>
struct literal {
  char text[n]{};
  constexpr literal(const char (&from)[n]) {
    for (std::size_t i = 0; i < n; ++i) text[i] = from[i];
  }
};
/// "name what", put together by the compiler: a text that outlives the call.
template <literal name, literal what>
struct sentence {
  static constexpr auto joined = [] {
    struct {
      char text[sizeof(name.text) + sizeof(what.text)]{};
    } all;
    std::size_t at = 0;
    for (const char c : name.text) all.text[at++] = c;
    all.text[at - 1] = ' ';
    for (const char c : what.text) all.text[at++] = c;
    return all;
  }();
};
template <literal name, literal what>
constexpr const char* says = sentence<name, what>::joined.text;

/// Why a row is no description of memory on any device, or nullptr.
template <literal name, class Row>
static const char* memory_problem(const Row& row) {
  if (row.size() < 0) return says<name, "has a negative size">;
  if (prospect::detail::view_problem(row) == nullptr) return nullptr;
  return row.data() == nullptr ? says<name, "has no data">
                               : says<name, "is misaligned, or larger than any memory">;
}

/// Of an input that must be there, with an element for each of n rows.
template <literal name, class Row>
static const char* input_problem(const Row& row, std::int64_t n) {
  if (row.size() != n) return says<name, "must have an element for each row of the batch">;
  return memory_problem<name>(row);
}
/// Of one that may be left out.
template <literal name, class Row>
static const char* option_problem(const Row& row, std::int64_t n) {
  return row.empty() ? nullptr : input_problem<name>(row, n);
}
/// Of an output, which may be left out, and has a place of its own for each row.
template <literal name, class Row>
static const char* output_problem(const Row& row, std::int64_t n) {
  if (const char* why = option_problem<name>(row, n)) return why;
  if (row.size() < 2 || row.stride() != 0) return nullptr;
  return says<name, "has stride 0: every result would overwrite the last">;
}

/// The first problem that there is.
template <class... Problems>
static const char* first_of(Problems... problems) {
  const char* first = nullptr;
  ((first = first != nullptr ? first : problems), ...);
  return first;
}

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
