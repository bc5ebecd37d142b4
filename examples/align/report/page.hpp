// The frame of every HTML page: one file without scripts, fonts or links, so that it can be mailed,
// archived and opened anywhere; light or dark as the reader's system is.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace align {

// `body` is HTML; `more_style` is CSS that only this page needs.
std::string page(std::string_view title, std::string_view body, std::string_view more_style = {});

// <name>text</name>, the text escaped.
std::string element(const std::string& name, std::string_view text);

// The sentences as a list with bullets.
std::string bullets(const std::vector<std::string>& sentences);

}  // namespace align
