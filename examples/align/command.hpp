// The command that repeats a run, ready to be pasted into a shell.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace align {

// As it is where a shell reads it as one word, else in quotes.
std::string shell_word(std::string_view word);

// The words of a command line. A script that starts the program under another name gives the whole
// command as it was typed, ready to be pasted.
std::string command_line(std::span<const char* const> words, const char* typed);

}  // namespace align
