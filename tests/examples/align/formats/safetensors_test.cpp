// safetensors files and folders of them.
#include "formats/safetensors.hpp"

#include <numeric>

#include "catch.hpp"
#include "tiny_model.hpp"

using namespace align;

namespace {

std::string file_of(const std::string& header, std::size_t data = 0) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + header +
         std::string(data, '\0');
}

std::string entry(const std::string& name, const std::string& type, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + type + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

std::string objection(const std::string& bytes) {
  return complaint([&] { parse_safetensors(as_span(bytes), "x"); });
}

}  // namespace

TEST_CASE("safetensors come back as they were written") {
  const scratch here;
  const std::vector<planned_tensor> plans{
      {.name = "a", .type = element_type::f32, .shape = {3}},
      {.name = "b", .type = element_type::bf16, .shape = {2, 4}},
      {.name = "c", .type = element_type::f16, .shape = {1, 1}}};
  write_safetensors(here.folder() / "model.safetensors", plans,
                    [](std::size_t tensor, std::size_t first, std::span<float> rows) {
                      std::iota(rows.begin(), rows.end(), static_cast<float>(100 * tensor + first));
                    });
  const safetensors_folder read = read_safetensors(here.folder());
  REQUIRE(read.tensors.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(read.tensors[i].name == plans[i].name);
    CHECK(read.tensors[i].type == plans[i].type);
    CHECK(read.tensors[i].shape == plans[i].shape);
  }
  std::vector<float> b(8);
  decode(element_type::bf16, read.tensors[1].bytes, b);
  CHECK(b[7] == 107);
  const std::vector<planned_tensor> blocks{
      {.name = "q", .type = element_type::q8_0, .shape = {32}}};
  CHECK(complaint([&] { write_safetensors(here.folder() / "x", blocks, {}); }) ==
        "a safetensors file does not hold q8_0");
}

TEST_CASE("a header that is no such thing is refused") {
  CHECK(objection("") == "x: the file ends too early");
  CHECK(objection(std::string(8, '\xff')) == "x: this is no safetensors file");
  CHECK(objection(file_of("{}").substr(0, 9)) == "x: the file ends too early");
  CHECK(objection(file_of("[]")) == "x: this is no safetensors file");
  CHECK(objection(file_of("{}")).empty());
  CHECK(objection(file_of("{}     ")).empty());
  CHECK(contains(objection(file_of("{")), "x: not valid JSON at byte "));
  CHECK(objection(file_of(R"({"a":1e999})")) == "x: a number is out of range");
  CHECK(objection(file_of(R"({"a":{},"a":{}})")) == "x: the JSON has the key a twice");
  CHECK(objection(file_of("{\"a\":" + std::string(100'000, '['))) ==
        "x: the JSON is nested too deeply");
  CHECK(objection(file_of(R"({"__metadata__":{"format":"pt"}})")).empty());
}

TEST_CASE("entries of a header are checked") {
  const auto one = [](const std::string& type, const std::string& shape,
                      const std::string& offsets) {
    return file_of("{" + entry("t", type, shape, offsets) + "}", 8);
  };
  CHECK(objection(one("F32", "[2]", "[0,8]")).empty());
  CHECK(objection(one("F32", "[2,1]", "[0,8]")).empty());
  CHECK(objection(file_of(R"({"t":1})")) == "x: the tensor t is not described by a JSON object");
  CHECK(objection(file_of(R"({"t":{}})")) == "x: the tensor t: \"dtype\" is missing");
  CHECK(objection(one("I64", "[1]", "[0,8]")) ==
        "x: the tensor t is of type I64, and only F32, F16 and BF16 are read");
  CHECK(contains(objection(one("F32", "2", "[0,8]")), "has no list of shape"));
  CHECK(contains(objection(one("F32", "[-2]", "[0,8]")), "something else than sizes as shape"));
  CHECK(contains(objection(one("F32", "[2.0]", "[0,8]")), "something else than sizes as shape"));
  CHECK(contains(objection(one("F32", "[18446744073709551616]", "[0,8]")), "something else than"));
  for (const char* offsets : {"[0,9]", "[8,0]", "[0]", "[0,4,8]", "[0,18446744073709551615]"}) {
    CHECK(contains(objection(one("F32", "[2]", offsets)), "the tensor t lies beyond the end"));
  }
  for (const char* shape : {"[3]", "[1]", "[4611686018427387906]", "[4294967296,4294967296,2]"}) {
    CHECK(contains(objection(one("F32", shape, "[0,8]")), "has another number of bytes"));
  }
}

TEST_CASE("every byte belongs to one tensor") {
  const auto two = [](const std::string& first, const std::string& second, std::size_t size) {
    return file_of(
        "{" + entry("t", "F16", "[2]", first) + "," + entry("u", "F16", "[2]", second) + "}", size);
  };
  CHECK(objection(two("[4,8]", "[0,4]", 8)).empty());
  CHECK(objection(two("[0,4]", "[2,6]", 6)) == "x: the tensors t and u overlap");
  CHECK(objection(two("[0,4]", "[6,10]", 10)) == "x: there are bytes of no tensor before u");
  CHECK(objection(two("[0,4]", "[4,8]", 9)) == "x: there are bytes of no tensor at the end");
  const std::string none = entry("none", "F16", "[0]", "[0,0]");
  CHECK(objection(file_of("{" + entry("t", "F16", "[1]", "[0,2]") + "," + none + "}", 2)).empty());
}

TEST_CASE("a folder of several files is read by its index") {
  const scratch here;
  here.write("one.safetensors", file_of("{" + entry("a", "F16", "[1]", "[0,2]") + "}", 2));
  here.write("two.safetensors", file_of("{" + entry("b", "F16", "[1]", "[0,2]") + "}", 2));
  const auto with_index = [&](const std::string& map) {
    here.write("model.safetensors.index.json", "{\"weight_map\":" + map + "}");
    return complaint([&] { read_safetensors(here.folder()); });
  };
  CHECK(contains(complaint([&] { read_safetensors(here.folder()); }),
                 "has neither model.safetensors"));
  CHECK(with_index(R"({"a":"one.safetensors","b":"two.safetensors"})").empty());
  CHECK(read_safetensors(here.folder()).tensors.size() == 2);
  CHECK(contains(with_index("3"), "\"weight_map\" must be a JSON object"));
  CHECK(with_index(R"({"a":"one.safetensors"})").empty());  // the other file is not ours
  CHECK(contains(with_index(R"({"a":"one.safetensors","c":"two.safetensors"})"),
                 "two.safetensors: the index does not place the tensor b here"));
  CHECK(contains(with_index(R"({"a":"one.safetensors","c":"one.safetensors"})"),
                 "the tensor c is not in one.safetensors"));
  CHECK(contains(with_index(R"({"a":"gone.safetensors"})"), "there is no file "));
  for (const char* outside : {"\"../one.safetensors\"", "\"/etc/passwd\"", "\"..\"", "\"\"", "1"}) {
    CHECK(contains(with_index(std::string("{\"a\":") + outside + "}"),
                   "the tensor a is in no file of the folder"));
  }
}
