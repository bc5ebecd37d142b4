// What the C surface on sequences refuses: each argument by its name, before anything is written.
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "c/surface.hpp"
#include "catch.hpp"

namespace {

using testing::c_loss;
using testing::c_metrics;
using testing::c_row;
using testing::sized;

/// Everything valid, with outputs that would show a write: each test spoils one thing.
struct small_pairs {
  std::vector<float> a{-1, -2, -3}, b{-2, -1, -3}, r{-1.5F, -1.5F, -1.5F}, w{1, 1, 1}, m{0, 0, 0};
  std::vector<float> loss{7, 7, 7}, dc{7, 7, 7}, dr{7, 7, 7}, rc{7, 7, 7}, rr{7, 7, 7}, d{7, 7, 7};
  std::vector<std::int32_t> tokens{2, 2, 2}, chosen{0, 1}, rejected{1, 2};
  prospect_error error{};
  c_metrics metrics;
  prospect_pairs args = sized<prospect_pairs>();

  small_pairs() {
    args.policy_chosen = c_row(a);
    args.policy_rejected = c_row(b);
    args.reference_chosen = args.reference_rejected = c_row(r);
    args.chosen_tokens = args.rejected_tokens = c_row(tokens);
    args.weight = c_row(w);
    args.margin = c_row(m);
    args.loss = c_row(loss);
    args.d_policy_chosen = c_row(dc);
    args.d_policy_rejected = c_row(dr);
    args.reward_chosen = c_row(rc);
    args.reward_rejected = c_row(rr);
  }
  /// The same rows as those of sequences, of which two are pairs.
  void index() {
    args = sized<prospect_pairs>();
    args.policy = c_row(a);
    args.reference = c_row(r);
    args.tokens = c_row(tokens);
    args.chosen = c_row(chosen);
    args.rejected = c_row(rejected);
    args.loss = c_row(loss);
    args.loss.size = 2;
    args.d_policy_chosen = c_row(dc);
    args.d_policy_chosen.size = 2;
  }
  prospect_status run(const char* name = "dpo") {
    const prospect_loss l = c_loss(name);
    return prospect_pairs_cpu(&l, &args, &metrics, nullptr, &error);
  }
  void refused(prospect_status status, const std::string& words, const char* name = "dpo") {
    testing::refused(run(name), status, error, words);
    const std::vector<float> untouched{7, 7, 7};
    for (const auto* row : {&loss, &dc, &dr, &rc, &rr, &d}) CHECK(*row == untouched);
    CHECK(metrics.metrics.total == 42);
    CHECK(metrics.room[0].sum == 42);
  }
};

struct small_completions {
  std::vector<float> policy{-1, -2}, reference{-2, -1}, w{1, 1}, loss{7, 7}, d{7, 7}, reward{7, 7};
  std::vector<std::uint8_t> desirable{1, 0};
  std::vector<std::int32_t> tokens{2, 2};
  prospect_error error{};
  c_metrics metrics;
  prospect_completions args = sized<prospect_completions>();

  small_completions() {
    args.policy = args.mismatched_policy = c_row(policy);
    args.reference = args.mismatched_reference = c_row(reference);
    args.tokens = args.mismatched_tokens = c_row(tokens);
    args.desirable = c_row(desirable);
    args.weight = c_row(w);
    args.loss = c_row(loss);
    args.d_policy = c_row(d);
    args.reward = c_row(reward);
  }
  prospect_status run(const char* name = "kto") {
    const prospect_loss l = c_loss(name);
    return prospect_completions_cpu(&l, &args, &metrics, nullptr, &error);
  }
  void refused(prospect_status status, const std::string& words, const char* name = "kto") {
    testing::refused(run(name), status, error, words);
    for (const auto* row : {&loss, &d, &reward}) CHECK(*row == std::vector<float>{7, 7});
    CHECK(metrics.metrics.total == 42);
  }
};

struct named_pair_row {
  const char* name;
  prospect_row prospect_pairs::*row;
};
const named_pair_row paired_rows[] = {{"policy_chosen", &prospect_pairs::policy_chosen},
                                      {"policy_rejected", &prospect_pairs::policy_rejected},
                                      {"reference_chosen", &prospect_pairs::reference_chosen},
                                      {"reference_rejected", &prospect_pairs::reference_rejected},
                                      {"chosen_tokens", &prospect_pairs::chosen_tokens},
                                      {"rejected_tokens", &prospect_pairs::rejected_tokens},
                                      {"weight", &prospect_pairs::weight},
                                      {"margin", &prospect_pairs::margin},
                                      {"loss", &prospect_pairs::loss},
                                      {"d_policy_chosen", &prospect_pairs::d_policy_chosen},
                                      {"d_policy_rejected", &prospect_pairs::d_policy_rejected},
                                      {"reward_chosen", &prospect_pairs::reward_chosen},
                                      {"reward_rejected", &prospect_pairs::reward_rejected}};
struct named_answer_row {
  const char* name;
  prospect_row prospect_completions::*row;
};
const named_answer_row unpaired_rows[] = {
    {"policy", &prospect_completions::policy},
    {"reference", &prospect_completions::reference},
    {"desirable", &prospect_completions::desirable},
    {"tokens", &prospect_completions::tokens},
    {"weight", &prospect_completions::weight},
    {"mismatched_policy", &prospect_completions::mismatched_policy},
    {"mismatched_reference", &prospect_completions::mismatched_reference},
    {"mismatched_tokens", &prospect_completions::mismatched_tokens},
    {"loss", &prospect_completions::loss},
    {"d_policy", &prospect_completions::d_policy},
    {"reward", &prospect_completions::reward}};

/// What any row may have wrong, and which status says so.
struct defect {
  const char* words;
  prospect_status status;
  void (*spoil)(prospect_row& row);
};
const defect defects[] = {
    {"has a negative size", PROSPECT_INVALID_ARGUMENT, [](prospect_row& r) { r.size = -1; }},
    {"has no data", PROSPECT_INVALID_ARGUMENT, [](prospect_row& r) { r.data = nullptr; }},
    {"is larger than any memory", PROSPECT_INVALID_ARGUMENT,
     [](prospect_row& r) { r.size = std::numeric_limits<std::int64_t>::max() / 2; }},
    {"is larger than any memory", PROSPECT_INVALID_ARGUMENT,
     [](prospect_row& r) { r.stride = std::int64_t{1} << 62; }},
    {"dtype must be", PROSPECT_UNSUPPORTED, [](prospect_row& r) { r.dtype = 77; }},
    {"dtype must be", PROSPECT_UNSUPPORTED, [](prospect_row& r) { r.dtype = -1; }},
    // 64 bits a number: no row of these is made of such.
    {"dtype must be", PROSPECT_UNSUPPORTED,
     [](prospect_row& r) {
       alignas(8) static double numbers[3];
       r.data = numbers;
       r.dtype = PROSPECT_I64;
     }},
    {"reserved", PROSPECT_UNSUPPORTED, [](prospect_row& r) { r.reserved = 1; }}};

}  // namespace

TEST_CASE("what may be wrong with a row is found in every row of pairs") {
  for (const named_pair_row& row : paired_rows) {
    CAPTURE(row.name);
    for (const defect& d : defects) {
      small_pairs p;
      d.spoil(p.args.*row.row);
      p.refused(d.status, std::string{row.name});
      CHECK(std::string{p.error.message}.find(d.words) != std::string::npos);
    }
    small_pairs p;
    (p.args.*row.row).size = 2;
    if (row.row == &prospect_pairs::policy_chosen) {
      p.refused(PROSPECT_INVALID_ARGUMENT, "policy_rejected");  // which differs from it
    } else {
      p.refused(PROSPECT_INVALID_ARGUMENT, row.name);
    }
    small_pairs misaligned;
    prospect_row& r = misaligned.args.*row.row;
    r.data = static_cast<char*>(r.data) + 1;
    misaligned.refused(PROSPECT_INVALID_ARGUMENT,
                       std::string{row.name} + " is not aligned to its elements");
  }
}

TEST_CASE("what may be wrong with a row is found in every row of completions") {
  for (const named_answer_row& row : unpaired_rows) {
    CAPTURE(row.name);
    for (const defect& d : defects) {
      small_completions c;
      c.args.reference_point = PROSPECT_BATCH_MEAN;
      d.spoil(c.args.*row.row);
      c.refused(d.status, std::string{row.name});
      CHECK(std::string{c.error.message}.find(d.words) != std::string::npos);
    }
  }
}

TEST_CASE("each kind of row wants its own dtype") {
  small_pairs p;
  // Counts and flags that are something else, as long as they are.
  p.args.chosen_tokens.dtype = PROSPECT_F32;
  p.refused(PROSPECT_UNSUPPORTED, "chosen_tokens.dtype must be PROSPECT_I32");
  small_completions c;
  c.args.desirable = c_row(c.tokens);
  c.refused(PROSPECT_UNSUPPORTED, "desirable.dtype must be PROSPECT_U8 or PROSPECT_BOOL");
  small_pairs q;
  q.index();
  q.args.chosen.dtype = PROSPECT_F32;
  q.refused(PROSPECT_UNSUPPORTED, "chosen.dtype must be PROSPECT_I32 or PROSPECT_I64");
  small_pairs real;
  real.args.policy_chosen.dtype = PROSPECT_I32;
  real.refused(PROSPECT_UNSUPPORTED,
               "policy_chosen.dtype must be PROSPECT_F32, _F64, _F16 or _BF16");
}

TEST_CASE("outputs that overwrite themselves are refused") {
  for (const named_pair_row& row : paired_rows) {
    if (row.row == &prospect_pairs::loss || std::string{row.name}.starts_with("d_") ||
        std::string{row.name}.starts_with("reward")) {
      small_pairs p;
      (p.args.*row.row).stride = 0;
      p.refused(PROSPECT_INVALID_ARGUMENT, std::string{row.name} + " has stride 0");
    }
  }
}

TEST_CASE("what a loss reads must be there, and only its kind of batch fits it") {
  small_pairs p;
  p.args.reference_rejected = {};
  p.refused(PROSPECT_INVALID_ARGUMENT, "reference_rejected");
  small_pairs q;
  q.args.chosen_tokens = {};
  q.refused(PROSPECT_INVALID_ARGUMENT, "chosen_tokens", "ipo");
  small_pairs kind;
  kind.refused(PROSPECT_INVALID_ARGUMENT, "kto is not a paired loss", "kto");
  small_completions c;
  c.refused(PROSPECT_INVALID_ARGUMENT, "dpo is not an unpaired loss", "dpo");
  small_completions d;
  d.args.desirable = {};
  d.refused(PROSPECT_INVALID_ARGUMENT, "desirable");
}

TEST_CASE("pairs by rows and by index are not mixed") {
  prospect_row prospect_pairs::*const by_rows[] = {
      &prospect_pairs::policy_chosen,    &prospect_pairs::policy_rejected,
      &prospect_pairs::reference_chosen, &prospect_pairs::reference_rejected,
      &prospect_pairs::chosen_tokens,    &prospect_pairs::rejected_tokens};
  for (const auto row : by_rows) {
    small_pairs right, p;
    right.index();
    REQUIRE(right.run() == PROSPECT_OK);
    const prospect_row given = p.args.*row;
    p.index();
    p.args.*row = given;
    p.refused(PROSPECT_INVALID_ARGUMENT, "is given, but chosen and rejected are positions");
  }
  for (const auto row : {&prospect_pairs::policy, &prospect_pairs::reference,
                         &prospect_pairs::tokens, &prospect_pairs::d_policy}) {
    small_pairs p;
    p.args.*row = c_row(p.d);
    p.refused(PROSPECT_INVALID_ARGUMENT, "is given, but chosen and rejected do not say");
  }
  small_pairs half;
  half.index();
  half.args.rejected = {};
  half.refused(PROSPECT_INVALID_ARGUMENT, "rejected");
}

TEST_CASE("an index that names no sequence, or one twice where there is one place for it") {
  small_pairs p;
  p.index();
  p.chosen[1] = 3;
  p.refused(PROSPECT_INVALID_ARGUMENT, "chosen");
  p.chosen[1] = -1;
  p.refused(PROSPECT_INVALID_ARGUMENT, "chosen");
  p.chosen[1] = 1;  // rejected in the first pair
  p.args.d_policy = c_row(p.d);
  p.refused(PROSPECT_INVALID_ARGUMENT, "1");
  p.args.d_policy = {};
  CHECK(p.run() == PROSPECT_OK);
}

TEST_CASE("normalisers and reference points of no version, and counts that are none") {
  small_pairs p;
  p.args.normaliser = 77;
  p.refused(PROSPECT_UNSUPPORTED, "normaliser");
  for (const double count : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(),
                             std::numeric_limits<double>::infinity()}) {
    p.args.normaliser = PROSPECT_OVER;
    p.args.count = count;
    p.refused(PROSPECT_INVALID_ARGUMENT, "count");
    p.args.normaliser = PROSPECT_OVER_AT;
    p.args.count_at = &count;
    p.refused(PROSPECT_INVALID_ARGUMENT, "count");
  }
  p.args.count_at = nullptr;
  p.refused(PROSPECT_INVALID_ARGUMENT, "count_at is NULL");
  small_completions c;
  c.args.reference_point = 9;
  c.refused(PROSPECT_UNSUPPORTED, "reference_point");
  c.args.reference_point = PROSPECT_OBSERVED;
  c.refused(PROSPECT_INVALID_ARGUMENT, "observed is NULL");
}

TEST_CASE("a reference point that is no number is refused, where it is read") {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
        -std::numeric_limits<double>::infinity()}) {
    for (double prospect_completions::*member :
         {&prospect_completions::z, &prospect_completions::z_raw}) {
      small_completions c;
      c.args.*member = bad;
      c.refused(PROSPECT_INVALID_ARGUMENT, "prospect: z");
      c.args.reference_point = PROSPECT_CROSS_CLASS;
      CHECK(c.run() == PROSPECT_OK);
    }
    for (double prospect_observation::*member :
         {&prospect_observation::sum, &prospect_observation::count}) {
      small_completions c;
      prospect_observation observed{1, 1, 0, -1};
      observed.*member = bad;
      c.args.observed = &observed;
      c.args.reference_point = PROSPECT_OBSERVED;
      c.refused(PROSPECT_INVALID_ARGUMENT, "observed");
    }
  }
}

TEST_CASE("metrics that cannot be written are refused before any work") {
  small_pairs p;
  p.metrics.metrics.capacity = -1;
  p.refused(PROSPECT_INVALID_ARGUMENT, "metrics.capacity");
  p.metrics.metrics.capacity = 1;
  p.metrics.metrics.metric = nullptr;
  p.refused(PROSPECT_INVALID_ARGUMENT, "metrics.metric is NULL");
  // With room for two: two are written, and all are counted.
  p.metrics.metrics.metric = p.metrics.room.data();
  p.metrics.metrics.capacity = 2;
  REQUIRE(p.run() == PROSPECT_OK);
  CHECK(p.metrics.metrics.size == 8);
  CHECK(std::string{p.metrics.room[1].name} == "rewards/chosen");
  CHECK(p.metrics.room[2].sum == 42);
  // With room for none: the total alone.
  p.metrics.metrics.metric = nullptr;
  p.metrics.metrics.capacity = 0;
  p.metrics.metrics.total = 42;
  REQUIRE(p.run() == PROSPECT_OK);
  CHECK(p.metrics.metrics.total != 42);
}

TEST_CASE("NULL where something must be") {
  small_pairs p;
  const prospect_loss dpo = c_loss("dpo"), kto = c_loss("kto");
  prospect_error& e = p.error;
  const prospect_row none{};
  const auto refused = [&](prospect_status status, const char* words) {
    testing::refused(status, PROSPECT_INVALID_ARGUMENT, e, words);
  };
  refused(prospect_pairs_cpu(nullptr, &p.args, nullptr, nullptr, &e), "loss is NULL");
  refused(prospect_pairs_cpu(&dpo, nullptr, nullptr, nullptr, &e), "pairs is NULL");
  refused(prospect_completions_cpu(&kto, nullptr, nullptr, nullptr, &e), "completions is NULL");
  refused(prospect_mismatched_kl_cpu(none, none, none, nullptr, nullptr, &e), "observed is NULL");
  prospect_observation seen{7, 7, 7, 7};
  refused(prospect_mismatched_kl_cpu(none, none, none, &seen, nullptr, &e), "mismatched policy");
  CHECK(seen.sum == 7);
  // And no error struct is no error.
  CHECK(prospect_pairs_cpu(nullptr, nullptr, nullptr, nullptr, nullptr) ==
        PROSPECT_INVALID_ARGUMENT);
}
