// Phase 2: losses and coefficients of pairs, of thumbs and of tokens.
#include "layout.hpp"
#include "losses.hpp"

#include <prospect/batch.hpp>
#include <prospect/token_batch.hpp>

#include <cstring>
#include <limits>

namespace prospect::python {

namespace {

using pairs_row = named_row<prospect_pairs>;
constexpr pairs_row pairs_read[] = {
    {"policy_chosen", &prospect_pairs::policy_chosen},
    {"policy_rejected", &prospect_pairs::policy_rejected},
    {"reference_chosen", &prospect_pairs::reference_chosen},
    {"reference_rejected", &prospect_pairs::reference_rejected},
    {"chosen_tokens", &prospect_pairs::chosen_tokens, made_of::counts},
    {"rejected_tokens", &prospect_pairs::rejected_tokens, made_of::counts},
    {"policy", &prospect_pairs::policy},
    {"reference", &prospect_pairs::reference},
    {"tokens", &prospect_pairs::tokens, made_of::counts},
    {"chosen", &prospect_pairs::chosen, made_of::indices},
    {"rejected", &prospect_pairs::rejected, made_of::indices},
    {"weight", &prospect_pairs::weight},
    {"margin", &prospect_pairs::margin},
    {"policy_third", &prospect_pairs::policy_third},
    {"third_tokens", &prospect_pairs::third_tokens, made_of::counts},
    {"third", &prospect_pairs::third, made_of::indices},
};
constexpr pairs_row pairs_written[] = {
    {"loss", &prospect_pairs::loss},
    {"d_policy_chosen", &prospect_pairs::d_policy_chosen},
    {"d_policy_rejected", &prospect_pairs::d_policy_rejected},
    {"d_policy_third", &prospect_pairs::d_policy_third},
    {"d_policy", &prospect_pairs::d_policy},
    {"reward_chosen", &prospect_pairs::reward_chosen},
    {"reward_rejected", &prospect_pairs::reward_rejected},
};

using completions_row = named_row<prospect_completions>;
constexpr completions_row completions_read[] = {
    {"policy", &prospect_completions::policy},
    {"reference", &prospect_completions::reference},
    {"desirable", &prospect_completions::desirable, made_of::flags},
    {"tokens", &prospect_completions::tokens, made_of::counts},
    {"weight", &prospect_completions::weight},
    {"mismatched_policy", &prospect_completions::mismatched_policy},
    {"mismatched_reference", &prospect_completions::mismatched_reference},
    {"mismatched_tokens", &prospect_completions::mismatched_tokens, made_of::counts},
    {"target", &prospect_completions::target},
};
constexpr completions_row completions_written[] = {
    {"loss", &prospect_completions::loss},
    {"d_policy", &prospect_completions::d_policy},
    {"reward", &prospect_completions::reward},
};

using tokens_row = named_row<prospect_token_batch>;
constexpr tokens_row tokens_read[] = {
    {"policy", &prospect_token_batch::policy},
    {"old_policy", &prospect_token_batch::old_policy},
    {"reference", &prospect_token_batch::reference},
    {"advantage", &prospect_token_batch::advantage},
    {"token_advantage", &prospect_token_batch::token_advantage},
    {"weight", &prospect_token_batch::weight},
    {"entropy", &prospect_token_batch::entropy},
    {"targets", &prospect_token_batch::targets, made_of::indices},
    {"mask", &prospect_token_batch::mask, made_of::masks},
};
constexpr tokens_row tokens_written[] = {
    {"loss", &prospect_token_batch::loss},
    {"d_policy", &prospect_token_batch::d_policy},
    {"d_entropy", &prospect_token_batch::d_entropy},
};

template <class Table>
std::vector<std::string> names_of(const Table& table) {
  std::vector<std::string> names;
  for (const auto& row : table) names.emplace_back(row.name);
  return names;
}

/// How the batch's sum is divided, from Python's "mean", "sum" or a count.
template <class Batch>
void normalise(Batch& batch, const std::string& normaliser, double count) {
  if (normaliser == "mean") {
    batch.normaliser = PROSPECT_MEAN;
  } else if (normaliser == "sum") {
    batch.normaliser = PROSPECT_SUM;
  } else if (normaliser == "over") {
    batch.normaliser = PROSPECT_OVER;
    batch.count = count;
  } else {
    refuse("normaliser", R"(must be "mean", "sum" or "over")");
  }
}

// Metrics travel as a device writes them: sums and counts, first_nonfinite, total. All kinds have
// as many of them.
constexpr int metric_count = 8;
static_assert(sizeof(paired_metrics) == (2 * metric_count + 2) * sizeof(double) &&
              sizeof(unpaired_metrics) == sizeof(paired_metrics) &&
              sizeof(token_metrics) == sizeof(paired_metrics));
constexpr int total_at = static_cast<int>(offsetof(paired_metrics, total) / sizeof(double));
static_assert(offsetof(unpaired_metrics, total) == offsetof(paired_metrics, total) &&
              offsetof(token_metrics, total) == offsetof(paired_metrics, total));

/// The metrics of a call, in an array of the caller's.
class metrics_of {
 public:
  metrics_of(arrays& held, nb::handle array) {
    row_ = held.write("metrics", array);
    if (row_.dtype != PROSPECT_F64 || row_.stride != 1 ||
        row_.size * 8 < static_cast<std::int64_t>(sizeof(prospect_device_metrics))) {
      refuse("metrics", "must be a contiguous array of " +
                            std::to_string(sizeof(prospect_device_metrics) / 8) + " float64");
    }
    PROSPECT_INIT(host_);
    host_.metric = metric_;
    host_.capacity = metric_count;
  }
  prospect_metrics* host() { return &host_; }
  prospect_device_metrics* device() { return static_cast<prospect_device_metrics*>(row_.data); }
  /// Puts what a host's call said where a device would have.
  void store() {
    auto* const out = static_cast<double*>(row_.data);
    for (int i = 0; i < metric_count; ++i) {
      out[2 * i] = metric_[i].sum;
      out[2 * i + 1] = metric_[i].count;
    }
    std::memcpy(out + total_at - 1, &host_.first_nonfinite, sizeof host_.first_nonfinite);
    out[total_at] = host_.total;
  }

 private:
  prospect_row row_{};
  prospect_metric metric_[metric_count]{};
  prospect_metrics host_{};
};

void require_kind(const loss& l, prospect_kind kind, const char* problem) {
  if (l.kind != kind) refuse("loss", problem);
}

void pairs(const loss& l, nb::dict rows, nb::dict results, nb::handle metrics,
           const std::string& normaliser, double count, double token_count, std::uintptr_t stream,
           nb::object allocate) {
  require_kind(l, PROSPECT_PAIRED_LOSS, "is not one of pairs");
  arrays held;
  prospect_pairs batch{};
  PROSPECT_INIT(batch);
  fill(batch, pairs_read, rows, held, false);
  fill(batch, pairs_written, results, held, true);
  normalise(batch, normaliser, count);
  batch.token_count = token_count;
  metrics_of seen(held, metrics);
  call(
      held, {stream, allocate},
      [&](const prospect_context* c, prospect_error* e) {
        return prospect_pairs_cpu(&l.value, &batch, seen.host(), c, e);
      },
      [&](const prospect_context* c, prospect_error* e) {
        return prospect_pairs_cuda(&l.value, &batch, seen.device(), c, e);
      });
  if (!held.on_device()) seen.store();
}

void completions(const loss& l, nb::dict rows, nb::dict results, nb::handle metrics,
                 const std::string& reference_point, double z, const std::string& normaliser,
                 double count, std::uintptr_t stream, nb::object allocate) {
  require_kind(l, PROSPECT_UNPAIRED_LOSS, "is not one of thumbs");
  arrays held;
  prospect_completions batch{};
  PROSPECT_INIT(batch);
  fill(batch, completions_read, rows, held, false);
  fill(batch, completions_written, results, held, true);
  normalise(batch, normaliser, count);
  if (reference_point == "given") {
    batch.reference_point = PROSPECT_GIVEN_POINT;
    batch.z = batch.z_raw = z;
  } else if (reference_point == "cross_class") {
    batch.reference_point = PROSPECT_CROSS_CLASS;
  } else if (reference_point == "batch_mean") {
    batch.reference_point = PROSPECT_BATCH_MEAN;
  } else {
    refuse("reference_point", R"(must be "given", "cross_class" or "batch_mean")");
  }
  metrics_of seen(held, metrics);
  call(
      held, {stream, allocate},
      [&](const prospect_context* c, prospect_error* e) {
        return prospect_completions_cpu(&l.value, &batch, seen.host(), c, e);
      },
      [&](const prospect_context* c, prospect_error* e) {
        return prospect_completions_cuda(&l.value, &batch, seen.device(), c, e);
      });
  if (!held.on_device()) seen.store();
}

void token_losses(const loss& l, nb::dict rows, nb::dict results, nb::handle metrics,
                  std::int64_t sequences, std::int64_t length, nb::handle offsets,
                  double entropy_coef, const std::string& normaliser, double count,
                  std::uintptr_t stream, nb::object allocate) {
  require_kind(l, PROSPECT_TOKEN_LOSS, "is not one of tokens");
  arrays held;
  prospect_token_batch batch{};
  PROSPECT_INIT(batch);
  fill(batch, tokens_read, rows, held, false);
  fill(batch, tokens_written, results, held, true);
  normalise(batch, normaliser, count);
  batch.entropy_coef = entropy_coef;
  const prospect_layout layout = layout_of(held, sequences, length, offsets);
  batch.layout = &layout;
  metrics_of seen(held, metrics);
  call(
      held, {stream, allocate},
      [&](const prospect_context* c, prospect_error* e) {
        return prospect_token_losses_cpu(&l.value, &batch, seen.host(), c, e);
      },
      [&](const prospect_context* c, prospect_error* e) {
        return prospect_token_losses_cuda(&l.value, &batch, seen.device(), c, e);
      });
  if (!held.on_device()) seen.store();
}

/// (sums, first_nonfinite, total) of metrics that lie on the host now.
nb::tuple read_metrics(const loss& l, nb::handle array) {
  arrays held;
  metrics_of copied(held, array);
  if (held.on_device()) refuse("metrics", "must lie on the host");
  prospect_error error{};
  check(prospect_read_metrics(&l.value, copied.device(), copied.host(), &error), error);
  nb::dict sums;
  for (std::int32_t i = 0; i < copied.host()->size; ++i) {
    const prospect_metric& m = copied.host()->metric[i];
    sums[m.name] = nb::make_tuple(m.sum, m.count);
  }
  return nb::make_tuple(sums, copied.host()->first_nonfinite, copied.host()->total);
}

}  // namespace

void add_sequences(nb::module_& m) {
  m.def("pairs", &pairs, nb::arg("loss"), nb::arg("rows"), nb::arg("results"), nb::arg("metrics"),
        nb::arg("normaliser") = "mean", nb::arg("count") = 0.0, nb::arg("token_count") = 0.0,
        nb::arg("stream") = 0, nb::arg("allocate") = nb::none(),
        "A loss of pairs: reads `rows`, writes `results` and `metrics`.");
  m.def("completions", &completions, nb::arg("loss"), nb::arg("rows"), nb::arg("results"),
        nb::arg("metrics"), nb::arg("reference_point") = "given", nb::arg("z") = 0.0,
        nb::arg("normaliser") = "mean", nb::arg("count") = 0.0, nb::arg("stream") = 0,
        nb::arg("allocate") = nb::none(),
        "A loss of thumbs: reads `rows`, writes `results` and `metrics`.");
  m.def("token_losses", &token_losses, nb::arg("loss"), nb::arg("rows"), nb::arg("results"),
        nb::arg("metrics"), nb::arg("sequences") = 0, nb::arg("length") = 0,
        nb::arg("offsets") = nb::none(), nb::arg("entropy_coef") = 0.0,
        nb::arg("normaliser") = "mean", nb::arg("count") = 0.0, nb::arg("stream") = 0,
        nb::arg("allocate") = nb::none(),
        "A loss of tokens: reads `rows`, writes `results` and `metrics`.");
  m.def("read_metrics", &read_metrics, nb::arg("loss"), nb::arg("metrics"),
        "(sums, first_nonfinite, total) of what a call wrote into `metrics`.");
  m.attr("METRICS_SIZE") = sizeof(prospect_device_metrics) / sizeof(double);
  m.attr("TOTAL_AT") = total_at;
  m.attr("PAIRED_ROWS") = nb::tuple(nb::cast(names_of(pairs_read)));
  m.attr("UNPAIRED_ROWS") = nb::tuple(nb::cast(names_of(completions_read)));
  m.attr("TOKEN_ROWS") = nb::tuple(nb::cast(names_of(tokens_read)));
}

}  // namespace prospect::python
