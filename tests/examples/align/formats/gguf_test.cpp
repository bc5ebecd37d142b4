// GGUF files: what is written is read again, and what is damaged is refused in one sentence.
#include "formats/gguf.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "catch.hpp"
#include "tiny_model.hpp"

using namespace align;

namespace {

// As the file has it: text with its length before it, numbers in little-endian order.
template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string raw_text(const std::string& text) { return raw(std::uint64_t{text.size()}) + text; }

std::string raw_header(std::uint64_t tensors, std::uint64_t pairs, std::uint32_t version = 3) {
  return "GGUF" + raw(version) + raw(tensors) + raw(pairs);
}

std::string raw_tensor(const std::string& name, std::vector<std::uint64_t> sizes,
                       std::uint32_t type, std::uint64_t offset) {
  std::string entry = raw_text(name) + raw(static_cast<std::uint32_t>(sizes.size()));
  for (const std::uint64_t size : sizes) entry += raw(size);
  return entry + raw(type) + raw(offset);
}

// With room for what the tensors need.
std::string with_data(std::string header, std::size_t size = 256) {
  header.resize((header.size() + 31) / 32 * 32 + size);
  return header;
}

std::string refusal(const std::string& bytes) {
  return complaint([&] { parse_gguf(as_span(bytes), "x"); });
}

constexpr std::uint32_t raw_u32 = 4, raw_bool = 7, raw_string = 8, raw_array = 9;

}  // namespace

TEST_CASE("metadata and tensors come back in order, with their types") {
  const scratch here;
  const auto path = here.folder() / "x.gguf";
  const gguf_metadata metadata = tiny_metadata();
  const std::vector<planned_tensor> plans{
      {.name = "a", .type = element_type::f32, .shape = {3}},
      {.name = "b", .type = element_type::f16, .shape = {2, 5}},
      {.name = "c", .type = element_type::q8_0, .shape = {2, 3, 32}}};
  write_gguf(path, metadata, plans,
             [](std::size_t tensor, std::size_t first, std::span<float> rows) {
               std::iota(rows.begin(), rows.end(), static_cast<float>(100 * tensor + first));
             });
  const gguf_file read = read_gguf(path);
  CHECK(read.contents.metadata.entries() == metadata.entries());
  REQUIRE(read.contents.tensors.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    const stored_tensor& t = read.contents.tensors[i];
    CHECK(t.name == plans[i].name);
    CHECK(t.type == plans[i].type);
    CHECK(t.shape == plans[i].shape);
    CHECK(static_cast<std::size_t>(t.bytes.data() - read.file.bytes().data()) % 32 == 0);
  }
  std::vector<float> b(10);
  decode(element_type::f16, read.contents.tensors[1].bytes, b);
  CHECK(b[0] == 100);
  CHECK(b[9] == 109);
  CHECK(read.file.bytes().size() % 32 == 0);
}

TEST_CASE("the alignment that the metadata ask for is kept") {
  const scratch here;
  const auto path = here.folder() / "x.gguf";
  gguf_metadata metadata;
  metadata.append("general.alignment", std::uint32_t{1024});
  const std::vector<planned_tensor> plans{{.name = "a", .shape = {1}}, {.name = "b", .shape = {1}}};
  write_gguf(path, metadata, plans,
             [](std::size_t, std::size_t, std::span<float> rows) { rows[0] = 1; });
  const gguf_file read = read_gguf(path);
  CHECK(read.contents.tensors[1].bytes.data() == read.file.bytes().data() + 2048);
}

TEST_CASE("version 2 is read as version 3 is") {
  std::string bytes = tiny_gguf();
  REQUIRE(bytes[4] == 3);
  bytes[4] = 2;
  const auto contents = parse_gguf(as_span(bytes), "x");
  CHECK(contents.tensors.size() == 20);
}

TEST_CASE("lookups say what is missing or of another type") {
  gguf_metadata m("x.gguf");
  m.append("text", std::string("t"));
  m.append("flag", true);
  m.append("small", std::uint8_t{7});
  m.append("minus", std::int64_t{-1});
  m.append("single", 1e-5F);
  m.append("list", gguf_array(std::vector<std::int32_t>{1, 2}));
  CHECK(m.text("text") == "t");
  CHECK(m.flag("flag"));
  CHECK(m.whole("small") == 7);
  CHECK(m.real("single") == 1e-5);  // not 9.99999974737875e-06
  CHECK(m.array<std::int32_t>("list").size() == 2);
  CHECK(complaint([&] { m.text("title"); }) == "x.gguf: the metadata lack title");
  CHECK(complaint([&] { m.text("flag"); }) == "x.gguf: flag must be a string but is of type bool");
  CHECK(complaint([&] { m.flag("small"); }) == "x.gguf: small must be a bool but is of type u8");
  CHECK(contains(complaint([&] { m.whole("minus"); }), "minus must be a whole number"));
  CHECK(contains(complaint([&] { m.whole("flag"); }), "flag must be a whole number"));
  CHECK(contains(complaint([&] { m.real("small"); }), "small must be a real number"));
  CHECK(contains(complaint([&] { m.array<float>("list"); }),
                 "list must be an array of the expected"));
  CHECK(contains(complaint([&] { m.array<float>("text"); }), "but is of type string"));
  m.set("text", std::uint64_t{9});
  m.set("new", 2.5);
  CHECK(m.entries().front().first == "text");
  CHECK(m.whole("text") == 9);
  CHECK(m.real("new") == 2.5);
}

TEST_CASE("what is no GGUF file, or of another kind, is refused") {
  CHECK(refusal("") == "x: this is no GGUF file");
  CHECK(refusal("GGML" + raw_header(0, 0).substr(4)) == "x: this is no GGUF file");
  CHECK(refusal(raw_header(0, 0)).empty());
  CHECK(refusal(raw_header(0, 0, 1)) ==
        "x: the file is of GGUF version 1, and only 2 and 3 are read");
  CHECK(contains(refusal(raw_header(0, 0, 4)), "GGUF version 4"));
  CHECK(contains(refusal(raw_header(0, 0, 0)), "GGUF version 0"));
  CHECK(refusal(raw_header(0, 0, 3U << 24U)) == "x: the file is big-endian");
}

TEST_CASE("numbers of things beyond the file are refused before anything is made for them") {
  const std::uint64_t most = ~std::uint64_t{0}, many = std::uint64_t{1} << 60U;
  const std::string early = "x: the file ends too early";
  CHECK(refusal(raw_header(most, 0)) == early);
  CHECK(refusal(raw_header(0, most)) == early);
  CHECK(refusal(with_data(raw_header(0, 1) + raw(most))) == early);
  CHECK(refusal(with_data(raw_header(0, 1) + raw_text("k") + raw(raw_string) + raw(many))) ==
        early);
  for (const std::uint32_t type : {raw_u32, raw_bool, raw_string}) {
    CHECK(refusal(with_data(raw_header(0, 1) + raw_text("k") + raw(raw_array) + raw(type) +
                            raw(most))) == early);
  }
  CHECK(refusal(with_data(raw_header(1, 0) + raw(most))) == early);
}

TEST_CASE("metadata that mean nothing are refused") {
  const auto pair = [](std::uint32_t type, const std::string& value) {
    return with_data(raw_header(0, 1) + raw_text("k") + raw(type) + value);
  };
  CHECK(refusal(pair(raw_u32, raw(1U))).empty());
  CHECK(refusal(pair(13, raw(1U))) == "x: there is no metadata type 13");
  CHECK(refusal(pair(raw_array, raw(99U) + raw(std::uint64_t{0}))) ==
        "x: there is no metadata type 99");
  CHECK(refusal(pair(raw_array, raw(raw_array) + raw(std::uint64_t{1}))) ==
        "x: the metadata hold an array of arrays");
  CHECK(refusal(pair(raw_bool, "\2")) == "x: a bool is neither 0 nor 1");
  const std::string one = raw_text("k") + raw(raw_u32) + raw(1U);
  CHECK(refusal(with_data(raw_header(0, 2) + one + one)) == "x: the metadata hold k twice");
  const auto aligned = [](std::uint32_t alignment) {
    return with_data(raw_header(0, 1) + raw_text("general.alignment") + raw(raw_u32) +
                     raw(alignment));
  };
  CHECK(refusal(aligned(64)).empty());
  for (const std::uint32_t wrong : {0U, 3U, 48U, 1U << 31U}) {
    CHECK(contains(refusal(aligned(wrong)), "is no power of two up to 2^30"));
  }
}

TEST_CASE("tensors that are impossible are refused by name") {
  const auto tensor = [](std::vector<std::uint64_t> sizes, std::uint32_t type,
                         std::uint64_t offset) {
    return with_data(raw_header(1, 0) + raw_tensor("t", std::move(sizes), type, offset));
  };
  const std::uint64_t half = std::uint64_t{1} << 32U, most = ~std::uint64_t{0};
  CHECK(refusal(tensor({64}, 0, 0)).empty());
  CHECK(contains(refusal(tensor({}, 0, 0)), "the tensor t has 0 dimensions"));
  CHECK(contains(refusal(tensor({1, 1, 1, 1, 1}, 0, 0)), "the tensor t has 5 dimensions"));
  CHECK(contains(refusal(tensor({0}, 0, 0)), "the impossible shape [0]"));
  CHECK(contains(refusal(tensor({half, half}, 0, 0)), "the impossible shape"));
  CHECK(contains(refusal(tensor({most}, 1, 0)), "the impossible shape"));
  CHECK(contains(refusal(tensor({31, 2}, 8, 0)), "the impossible shape [2, 31]"));
  CHECK(contains(refusal(tensor({32}, 13, 0)), "the tensor t is of ggml type 13, and only"));
  CHECK(contains(refusal(tensor({65}, 0, 0)), "the tensor t lies beyond the end of the file"));
  CHECK(contains(refusal(tensor({1}, 0, 256)), "the tensor t lies beyond"));
  CHECK(contains(refusal(tensor({1}, 0, most / 32 * 32)), "the tensor t lies beyond"));
  CHECK(contains(refusal(tensor({1}, 0, 4)), "the tensor t is not aligned"));

  const auto two = [](const std::string& second, std::uint64_t offset) {
    return with_data(raw_header(2, 0) + raw_tensor("t", {16}, 0, 0) +
                     raw_tensor(second, {1}, 0, offset));
  };
  CHECK(refusal(two("u", 64)).empty());
  CHECK(refusal(two("t", 64)) == "x: the tensor t is there twice");
  CHECK(refusal(two("u", 32)) == "x: the tensors t and u overlap");
  CHECK(contains(refusal(two("u", 0)), "overlap"));
}
