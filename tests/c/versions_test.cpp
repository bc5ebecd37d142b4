// Structs of other versions: shorter than the first release's, never set, longer with and without
// something in what is not known here. For every struct of the surface, through a function that
// takes it.
#include <kernels/boundary.hpp>

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "c/surface.hpp"
#include "catch.hpp"

// A struct that has grown since its first release, as ours will.
struct grown {
  std::size_t struct_size;
  std::int64_t first;
  std::int64_t later;
};
template <>
inline constexpr std::size_t prospect::kernels::first_size<grown> = offsetof(grown, later);

namespace {

using testing::c_loss;
using testing::c_row;
using testing::sized;

/// A call with one struct in a larger one, whose bytes behind the known ones are the test's.
template <class Struct>
struct in_future {
  Struct known;
  unsigned char unknown[16];
};

/// Calls with the struct as it is, and with struct sizes of other versions.
template <class Struct>
void check_versions(const char* name, const Struct& right,
                    const std::function<prospect_status(const Struct*, prospect_error*)>& call) {
  CAPTURE(name);
  prospect_error error{};
  const prospect_status status = call(&right, &error);
  CAPTURE(std::string{error.message});
  CHECK(status == PROSPECT_OK);

  in_future<Struct> s{.known = right, .unknown = {}};
  const std::string field = std::string{name} + ".struct_size";
  constexpr std::size_t first = prospect::kernels::first_size<Struct>;
  for (const std::size_t wrong :
       {std::size_t{0}, std::size_t{4}, std::size_t{12}, std::size_t{16}, first - 8, first - 1,
        std::size_t{4097}, std::size_t{0xdeadbeef}}) {
    CAPTURE(wrong);
    s.known.struct_size = wrong;
    testing::refused(call(&s.known, &error), PROSPECT_INVALID_ARGUMENT, error, field);
  }
  s.known.struct_size = first;  // of a caller who knows nothing later
  CHECK(call(&s.known, &error) == PROSPECT_OK);
  s.known.struct_size = sizeof s;
  CHECK(call(&s.known, &error) == PROSPECT_OK);
  for (const unsigned i : {0U, 1U, 7U, 15U}) {
    CAPTURE(i);
    s.unknown[i] = 1;  // the first of them is right behind what is known
    testing::refused(call(&s.known, &error), PROSPECT_UNSUPPORTED, error,
                     std::string{name} + " uses fields of a newer version");
    s.unknown[i] = 0;
  }
}

}  // namespace

TEST_CASE("structs of other versions, one for each struct of the surface") {
  std::vector<float> a{-1, -2}, b{-2, -1}, r{-1, -1}, logits{1, 2, 3, 3, 2, 1}, log_prob{0, 0};
  std::vector<double> lse{0, 0}, sums{0};
  const std::vector<std::int32_t> target{0, 1};
  const std::vector<std::uint8_t> desirable{1, 0};
  const prospect_loss dpo = c_loss("dpo"), kto = c_loss("kto"), sft = c_loss("sft");

  auto pairs = sized<prospect_pairs>();
  pairs.policy_chosen = c_row(a);
  pairs.policy_rejected = c_row(b);
  pairs.reference_chosen = pairs.reference_rejected = c_row(r);
  check_versions<prospect_pairs>("pairs", pairs, [&](auto* p, auto* error) {
    return prospect_pairs_cpu(&dpo, p, nullptr, nullptr, error);
  });
  auto completions = sized<prospect_completions>();
  completions.policy = c_row(a);
  completions.reference = c_row(r);
  completions.desirable = c_row(desirable);
  check_versions<prospect_completions>("completions", completions, [&](auto* c, auto* error) {
    return prospect_completions_cpu(&kto, c, nullptr, nullptr, error);
  });
  check_versions<prospect_metrics>("metrics", sized<prospect_metrics>(), [&](auto* m, auto* error) {
    return prospect_pairs_cpu(&dpo, &pairs, const_cast<prospect_metrics*>(m), nullptr, error);
  });
  check_versions<prospect_context>("context", sized<prospect_context>(), [&](auto* c, auto* error) {
    return prospect_pairs_cpu(&dpo, &pairs, nullptr, c, error);
  });

  const prospect_matrix x = PROSPECT_MATRIX(logits.data(), 2, 3);
  auto layout = sized<prospect_layout>();
  layout.sequences = 1;
  layout.length = 2;
  auto tokens = sized<prospect_tokens>();
  tokens.targets = c_row(target);
  tokens.layout = &layout;
  auto results = sized<prospect_token_results>();
  results.log_prob = c_row(log_prob);
  results.lse = c_row(lse);
  check_versions<prospect_tokens>("tokens", tokens, [&](auto* t, auto* error) {
    return prospect_token_log_probs_cpu(x, t, &results, nullptr, error);
  });
  check_versions<prospect_token_results>("results", results, [&](auto* out, auto* error) {
    return prospect_token_log_probs_cpu(x, &tokens, out, nullptr, error);
  });
  check_versions<prospect_layout>("layout", layout, [&](auto* l, auto* error) {
    tokens.layout = l;
    const prospect_status status = prospect_sequence_sums_cpu(&tokens, c_row(log_prob), c_row(sums),
                                                              prospect_row{}, nullptr, error);
    tokens.layout = &layout;
    return status;
  });
  auto batch = sized<prospect_token_batch>();
  batch.policy = c_row(a);
  batch.layout = &layout;
  check_versions<prospect_token_batch>("batch", batch, [&](auto* t, auto* error) {
    return prospect_token_losses_cpu(&sft, t, nullptr, nullptr, error);
  });
  auto coefficients = sized<prospect_token_coefficients>();
  coefficients.log_prob = coefficients.d_token = c_row(log_prob);
  coefficients.lse = c_row(lse);
  check_versions<prospect_token_coefficients>(
      "coefficients", coefficients, [&](auto* c, auto* error) {
        return prospect_logits_gradient_cpu(x, x, &tokens, c, nullptr, error);
      });
  const prospect_token_coefficients coefficients_again = coefficients;
  // What 0.2 knew of it: what lies behind is the caller's.
  coefficients.struct_size = offsetof(prospect_token_coefficients, d_entropy);
  std::memset(&coefficients.d_entropy, 0xff, 2 * sizeof(prospect_row));
  CHECK(prospect_logits_gradient_cpu(x, x, &tokens, &coefficients, nullptr, nullptr) ==
        PROSPECT_OK);
  auto reducer = sized<prospect_token_reducer>();
  reducer.log_prob = c_row(log_prob);
  check_versions<prospect_token_reducer>("reducer", reducer, [&](auto* by, auto* error) {
    return prospect_reduced_sums_cpu(&tokens, by, c_row(sums), prospect_row{}, nullptr, error);
  });
  auto values = sized<prospect_values>();
  values.value = values.old_value = values.returns = c_row(a);
  check_versions<prospect_values>("values", values, [&](auto* v, auto* error) {
    return prospect_value_loss_cpu(v, nullptr, nullptr, error);
  });

  // From hidden states, which are the logits: the weight is the unit matrix.
  std::vector<float> unit{1, 0, 0, 0, 1, 0, 0, 0, 1}, d_hidden(6);
  auto head = sized<prospect_head>();
  head.weight = PROSPECT_MATRIX(unit.data(), 3, 3);
  auto gradients = sized<prospect_head_gradients>();
  gradients.hidden = PROSPECT_MATRIX(d_hidden.data(), 2, 3);
  auto head_step = sized<prospect_head_step>();
  prospect_head_workspace* workspace = nullptr;
  REQUIRE(prospect_head_workspace_create(1 << 20, &workspace, nullptr) == PROSPECT_OK);
  auto of_step = sized<prospect_token_coefficients>();
  of_step.d_token = c_row(log_prob);
  head_step.hidden = x;
  head_step.head = &head;
  head_step.tokens = &tokens;
  head_step.group = 1;
  head_step.results = &results;
  head_step.ready.ready = [](void*, std::int64_t, std::int64_t) -> prospect_status {
    return PROSPECT_OK;
  };
  head_step.coefficients = &of_step;
  head_step.gradients = &gradients;
  head_step.workspace = workspace;
  // A library without Eigen reads none of them.
  if (prospect_head_step_cpu(&head_step, nullptr, nullptr) != PROSPECT_UNSUPPORTED) {
    check_versions<prospect_head>("head", head, [&](auto* h, auto* error) {
      return prospect_head_log_probs_cpu(x, h, &tokens, &results, nullptr, 0, workspace, nullptr,
                                         error);
    });
    check_versions<prospect_head_gradients>("gradients", gradients, [&](auto* g, auto* error) {
      return prospect_head_gradient_cpu(x, &head, &tokens, &coefficients_again, g, nullptr,
                                        workspace, nullptr, error);
    });
    check_versions<prospect_head_step>("step", head_step, [&](auto* s, auto* error) {
      return prospect_head_step_cpu(s, nullptr, error);
    });
  }
  prospect_head_workspace_destroy(workspace);
  const prospect_row rewards = c_row(a);
  auto advantages = sized<prospect_advantages>();
  advantages.groups = &layout;
  advantages.rewards = &rewards;
  advantages.components = 1;
  advantages.advantages = c_row(log_prob);
  check_versions<prospect_advantages>("advantages", advantages, [&](auto* of, auto* error) {
    return prospect_advantages_cpu(of, nullptr, nullptr, error);
  });
  std::vector<double> memory(500);
  auto context = sized<prospect_context>();
  context.scratch = memory.data();
  context.scratch_size = memory.size() * sizeof(double);
  completions.policy = {};
  completions.reference.size = completions.desirable.size = 1;
  auto step = sized<prospect_step>();
  step.logits = x;
  step.tokens = &tokens;
  step.loss = &kto;
  step.completions = &completions;
  check_versions<prospect_step>("step", step, [&](auto* s, auto* error) {
    return prospect_step_cpu(s, nullptr, &context, error);
  });
}

TEST_CASE("a struct that has grown: what an older caller lacks reads as zero") {
  grown g{.struct_size = offsetof(grown, later), .first = 3, .later = 77};
  const grown old = prospect::kernels::versioned(&g, "grown");
  CHECK(old.first == 3);
  CHECK(old.later == 0);
  g.struct_size = sizeof g;
  CHECK(prospect::kernels::versioned(&g, "grown").later == 77);
  g.struct_size = offsetof(grown, later) - 1;
  CHECK_THROWS_AS(prospect::kernels::versioned(&g, "grown"), prospect::kernels::failure);
}
