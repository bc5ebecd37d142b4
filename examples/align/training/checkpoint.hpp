// A training state on disk. A file is bound to the data and settings it was made with, is written
// whole or not at all, and is checked before any of it is believed.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "training/train.hpp"

namespace align {

// `settings` is everything that decides what the run computes, as text; `trained` the numbers that
// it changes.
void save_checkpoint(const std::filesystem::path& path, std::string_view settings,
                     std::span<const float> trained, const training_state& state);

// Fills `trained`. Throws std::runtime_error with one clear sentence unless the file is whole and
// was made with these settings and as many numbers.
training_state load_checkpoint(const std::filesystem::path& path, std::string_view settings,
                               std::span<float> trained);

// A file name of its own for every text of settings.
std::string checkpoint_name(std::string_view stage, std::string_view settings);

}  // namespace align
