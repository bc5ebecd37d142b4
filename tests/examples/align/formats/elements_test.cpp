// Blocks and 16 bits. The fixed vectors are random blocks with what the Python package gguf 0.19
// (gguf.quants.dequantize, quantize) makes of them, which is the reference outside of ggml itself.
#include "formats/elements.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "../scratch.hpp"
#include "catch.hpp"
#include "formats/half.hpp"

using namespace align;

namespace {

std::vector<std::byte> bytes_of_hex(std::string_view text) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

std::vector<std::byte> encoded(element_type type, const std::vector<float>& elements) {
  std::vector<std::byte> bytes(byte_count(type, std::vector{elements.size()}).value());
  encode(type, elements, bytes);
  return bytes;
}

struct fixed {
  element_type type;
  std::string_view block;
  std::vector<float> some;  // every third element of 32, every seventeenth of 256
};

}  // namespace

TEST_CASE("blocks are decoded as ggml does, bit for bit") {
  const fixed c = GENERATE(
      fixed{element_type::q8_0,
            "4c22e5f1a94106a0956a26afbccdafe562f90a945f5693c642276ad5ab2da7394551",
            {-0.332061767578125, 0.799407958984375, -1.315948486328125, -0.996185302734375,
             -0.996185302734375, -0.086090087890625, 1.168365478515625, -0.71331787109375,
             1.30364990234375, 0.553436279296875, 0.848602294921875}},
      fixed{element_type::q4_0,
            "4c22d74c3427fa48d732a1df70aca1e92611",
            {-0.012298583984375, -0.012298583984375, -0.012298583984375, 0.086090087890625,
             -0.086090087890625, -0.086090087890625, -0.061492919921875, -0.0491943359375,
             0.02459716796875, 0.02459716796875, -0.07379150390625}},
      fixed{element_type::q4_1,
            "4c2200ba8f063cd25e19a621f9bd0ccc21397c1e",
            {-0.565521240234375, -0.72540283203125, -0.67620849609375, -0.590118408203125,
             -0.737701416015625, -0.57781982421875, -0.713104248046875, -0.737701416015625,
             -0.565521240234375, -0.6024169921875, -0.663909912109375}},
      fixed{element_type::q4_k,
            "4c22f02748dc03d17a88934d85527357a2e64647f03e2fb81f223f4192c58efd5185f0711ef7677a1f13"
            "2a818d882195a100b28d6b236b82481bd9fe630dc3ce3be4ebcab72f45b35223479f6e794d57037e2cfd"
            "e9e15a7789781e3721a557d8e5a703296dcb81db3f65cf9c1bdc5d1d8fc83f0b0bb4db71be572209851d"
            "3d24f4c0cf83fe4363f82f4759778955f6ce",
            {-1.6015625, -1.306396484375, 1.12939453125, 2.1624755859375, -0.183258056640625,
             -0.035675048828125, 0.85137939453125, 1.896759033203125, 1.580291748046875,
             0.547210693359375, -0.53228759765625, 4.38714599609375, -1.024749755859375,
             -1.024749755859375, 1.378143310546875, 7.4659423828125}},
      fixed{element_type::q6_k,
            "d681cbea7179ced2c8f814a13472ff70ce369d8385452a44f318337f08cd1e614f235d3f83bc45fee9ee"
            "0403a79be118544441317c9311f85e0429b19f7ec0e156f65a3322e791b880ee995e3f0d307d2fbaf400"
            "693a179e0d027ed4e58be7a9ebc28a271d43a78855638144eb6603f7b2725de11fe6ac2f88a681828697"
            "93f0aad6ded8116e3ab51681c4a374fec70a68b3e4bdc92b387987416c17ec90963ec766888ab4b80eba"
            "7c5cfd81121bea9cee1810dfd5169faf26cd7b5c30c8aba44d972299e8c7b41b9a1d2b0f180600a94c22",
            {5.68194580078125, -28.40972900390625, 12.12640380859375, -21.534820556640625,
             2.656494140625, -2.8040771484375, 26.17138671875, -0.332061767578125, 40.142578125,
             -4.99322509765625, 8.990264892578125, 3.32061767578125, -3.837158203125,
             -1.77099609375, 0.0, -16.049652099609375}});
  const element_layout layout = layout_of(c.type);
  CAPTURE(layout.name);
  std::vector<float> elements(layout.elements);
  decode(c.type, bytes_of_hex(c.block), elements);
  const std::size_t step = layout.elements == 32 ? 3 : 17;
  for (std::size_t i = 0; i < c.some.size(); ++i) CHECK(elements[i * step] == c.some[i]);
}

TEST_CASE("q8_0 is encoded as ggml does: the largest is 127, halves away from zero") {
  std::vector<float> elements;
  for (int i = 0; i < 32; ++i) {
    elements.push_back(static_cast<float>((i * i * 7 % 31 - 15) * 0.3));
  }
  CHECK(encoded(element_type::q8_0, elements) ==
        bytes_of_hex("892881bc6e89222aa392f8cd19d608abc55555c5ab08d619cdf892a32a22896ebc81"));
  std::vector<float> halves(32);
  halves[0] = 127;
  halves[1] = 2.5F;
  halves[2] = -0.5F;
  const std::vector<std::byte> rounded = encoded(element_type::q8_0, halves);
  CHECK(rounded[2 + 0] == std::byte{127});
  CHECK(rounded[2 + 1] == std::byte{3});
  CHECK(rounded[2 + 2] == std::byte{0xff});
  CHECK(encoded(element_type::q8_0, std::vector<float>(32)) == std::vector<std::byte>(34));
}

TEST_CASE("16 bits are rounded to the nearest, ties to the even one") {
  const std::vector<float> elements{1,        1 + 0x1p-11F, 1 + 0x3p-11F, 65519, 65504,  0x1p-24F,
                                    0x1p-25F, 0x3p-25F,     -0.1F,        1e-8F, 6.1e-5F};
  CHECK(encoded(element_type::f16, elements) ==
        bytes_of_hex("003c003c023cff7bff7b01000000020066ae0000ff03"));
  CHECK(encoded(element_type::bf16, elements) ==
        bytes_of_hex("803f803f803f8047804780330033c033cdbd2c328038"));
}

TEST_CASE("all 2^16 numbers of 16 bits come back as they were") {
  int wrong = 0;
  for (std::uint32_t i = 0; i <= 0xffff; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const float half = float_of_half(bits), bfloat = float_of_bfloat(bits);
    // Of what is no number only that it stays none.
    wrong += std::isnan(half) ? !std::isnan(float_of_half(half_of_float(half)))
                              : half_of_float(half) != bits;
    wrong += std::isnan(bfloat) ? !std::isnan(float_of_bfloat(bfloat_of_float(bfloat)))
                                : bfloat_of_float(bfloat) != bits;
  }
  CHECK(wrong == 0);
}

TEST_CASE("a number of bytes is stated only where there is one") {
  using shape = std::vector<std::size_t>;
  CHECK(byte_count(element_type::f32, shape{3, 5}) == 60);
  CHECK(byte_count(element_type::q4_1, shape{3, 64}) == 120);
  CHECK(byte_count(element_type::q6_k, shape{2, 512}) == 840);
  CHECK(byte_count(element_type::f16, shape{}) == 2);
  CHECK(byte_count(element_type::f16, shape{3, 0}) == 0);
  CHECK_FALSE(byte_count(element_type::q8_0, shape{32, 33}));
  CHECK_FALSE(byte_count(element_type::q4_k, shape{32}));
  const std::size_t most = std::numeric_limits<std::size_t>::max();
  CHECK_FALSE(byte_count(element_type::f16, shape{most}));
  CHECK_FALSE(byte_count(element_type::f16, shape{most / 2 + 1, 2}));
  CHECK_FALSE(byte_count(element_type::q4_0, shape{std::size_t{1} << 32U, std::size_t{1} << 32U}));
}

TEST_CASE("types have ggml's numbers, and others are none") {
  for (std::uint32_t number = 0; number < 64; ++number) {
    if (const auto type = element_type_of(number))
      CHECK(static_cast<std::uint32_t>(*type) == number);
  }
  CHECK(element_type_of(12) == element_type::q4_k);
  CHECK_FALSE(element_type_of(13));
  CHECK_FALSE(element_type_of(0xffffffff));
}

TEST_CASE("what a type cannot hold is known before it is written") {
  const float inf = std::numeric_limits<float>::infinity();
  CHECK(can_hold(element_type::f16, std::vector{65519.0F, -65504.0F}));
  CHECK_FALSE(can_hold(element_type::f16, std::vector{0.0F, -65520.0F}));
  CHECK(can_hold(element_type::bf16, std::vector{0x1.fep127F}));
  CHECK_FALSE(can_hold(element_type::bf16, std::vector{0x1.ffp127F}));
  CHECK_FALSE(can_hold(element_type::f32, std::vector{inf}));
  CHECK_FALSE(can_hold(element_type::f32, std::vector{std::nanf("")}));
  std::vector<float> odd(32, std::nanf(""));
  odd[1] = inf;
  CHECK_NOTHROW(encoded(element_type::q8_0, odd));  // nonsense in, nonsense out, but defined
}

TEST_CASE("sizes that do not agree, and types that are only read, are the caller's mistake") {
  std::vector<float> elements(32);
  std::vector<std::byte> bytes(18);
  CHECK_NOTHROW(decode(element_type::q4_0, bytes, elements));
  CHECK_THROWS_AS(decode(element_type::q4_1, bytes, elements), std::invalid_argument);
  CHECK_THROWS_AS(decode(element_type::q4_0, bytes, std::span(elements).first(31)),
                  std::invalid_argument);
  CHECK_FALSE(can_encode(element_type::q4_0));
  CHECK_THROWS_AS(encode(element_type::q4_0, elements, bytes), std::invalid_argument);
}
