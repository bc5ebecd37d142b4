// Catch2 2.13 (one header) and 3 (many) under one name. Use what both have: TEST_CASE,
// TEMPLATE_TEST_CASE, GENERATE, CAPTURE, WithinAbs, WithinRel. SKIP is not among them.
#pragma once

#if __has_include(<catch2/catch_test_macros.hpp>)
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_all.hpp>
#include <catch2/matchers/catch_matchers_all.hpp>
#else
#include <catch2/catch.hpp>
#endif

using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;
