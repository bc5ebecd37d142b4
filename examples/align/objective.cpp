// Prospect's losses in this trainer, and the choice of one by name.
#include "objective.hpp"

#include <charconv>
#include <concepts>
#include <optional>
#include <prospect/losses/any.hpp>
#include <prospect/prospect.hpp>
#include <sstream>
#include <stdexcept>

namespace align {

namespace {

// ---- sequences: log-probabilities -> loss and coefficients --------------------------------------

double mean_or_absent(const prospect::sum_count& metric) {
  return metric.present() ? metric.mean() : not_measured;
}

template <class Metrics>
step_record record_of(const Metrics& metrics) {
  step_record record;
  record.loss = metrics.total;
  record.reward_desirable = mean_or_absent(metrics.rewards_chosen);
  record.reward_undesirable = mean_or_absent(metrics.rewards_rejected);
  record.margin = record.reward_desirable - record.reward_undesirable;
  if constexpr (requires { metrics.kl; }) {
    record.z = mean_or_absent(metrics.kl);
    record.z_raw = mean_or_absent(metrics.kl_unclamped);
  }
  return record;
}

objective paired_objective(const prospect::any_paired& loss) {
  const auto evaluate = [loss](const scored_batch& batch, point_memory&, std::span<double> d) {
    const prospect::strided_span<const double> policy{batch.policy}, reference{batch.reference};
    const prospect::strided_span<const std::int32_t> tokens{batch.tokens};
    const prospect::strided_span<double> d_policy{d};
    const auto n = policy.size() / 2;
    const prospect::paired_batch<double> in{.policy_chosen = policy.slice(0, n),
                                            .policy_rejected = policy.slice(n, n),
                                            .reference_chosen = reference.slice(0, n),
                                            .reference_rejected = reference.slice(n, n),
                                            .chosen_tokens = tokens.slice(0, n),
                                            .rejected_tokens = tokens.slice(n, n)};
    prospect::paired_outputs<double> out;
    out.d_policy_chosen = d_policy.slice(0, n);
    out.d_policy_rejected = d_policy.slice(n, n);
    return record_of(prospect::cpu::evaluate(loss, in, out));
  };
  return {.paired = true, .evaluate = evaluate};
}

// `point` makes of the batch and its memory what the loss is measured against.
template <class Point>
objective unpaired_objective(const prospect::any_unpaired& loss, const Point& point) {
  const auto evaluate = [loss, point](const scored_batch& batch, point_memory& memory,
                                      std::span<double> d) {
    const prospect::unpaired_batch<double> in{.policy = batch.policy,
                                              .reference = batch.reference,
                                              .desirable = batch.desirable,
                                              .tokens = batch.tokens};
    prospect::unpaired_outputs<double> out;
    out.d_policy = d;
    return record_of(prospect::cpu::evaluate(loss, in, point(batch, memory), out));
  };
  return {.evaluate = evaluate};
}

// Fine-tuning on what was liked, averaged over its tokens; the rest is left alone. The formula is
// one of tokens and linear in their log-probabilities, and so takes their sum.
template <class Loss>
objective imitation_objective(const Loss& loss) {
  const auto evaluate = [loss](const scored_batch& batch, point_memory&, std::span<double> d) {
    double tokens = 0;
    for (std::size_t i = 0; i < d.size(); ++i) tokens += batch.desirable[i] ? batch.tokens[i] : 0;
    step_record record;
    record.loss = 0;
    for (std::size_t i = 0; i < d.size(); ++i) {
      d[i] = 0;
      if (!batch.desirable[i] || tokens == 0) continue;
      const auto value =
          prospect::differentiate(loss, prospect::token<double>{.policy = batch.policy[i]});
      record.loss += value.loss / tokens;
      d[i] = value.d_policy / tokens;
    }
    return record;
  };
  return {.evaluate = evaluate};
}

// ---- reference points ---------------------------------------------------------------------------

// A batch of one has no mismatched rows, and observes nothing.
prospect::sum_count observe(const scored_batch& batch) {
  if (batch.mismatched_policy.empty()) return {};
  return prospect::cpu::mismatched_kl<double>(batch.mismatched_policy, batch.mismatched_reference);
}

prospect::reference_point from_batch(const scored_batch& batch, point_memory&) {
  return prospect::reference_point::from(observe(batch));
}

prospect::reference_point from_run(const scored_batch& batch, point_memory& memory) {
  prospect::pooled_point seen;
  seen.add({memory.sum, memory.count});
  seen.add(observe(batch));
  memory = {seen.observed().sum, seen.observed().count};
  return seen.point();
}

// BCO's: of the batch's own rows, this batch's included.
prospect::reference_point from_all(const scored_batch& batch, point_memory& memory) {
  prospect::running_point mean;
  mean.restore({memory.sum, memory.count});
  mean.add(prospect::cpu::mismatched_kl<double>(batch.policy, batch.reference, batch.tokens));
  memory = {mean.state().sum, mean.state().count};
  return mean.point();
}

auto moving_average(double decay) {
  return [start = prospect::ema_point{decay}](const scored_batch& batch, point_memory& memory) {
    prospect::ema_point average = start;
    average.restore({memory.sum, memory.count});
    average.add(observe(batch));
    memory = {average.state().sum, average.state().count};
    return average.point();
  };
}

auto fixed(const prospect::reference_point& point) {
  return [point](const scored_batch&, point_memory&) { return point; };
}

prospect::cross_class across_classes(const scored_batch&, point_memory&) { return {}; }

// "name" or "name:value".
struct point_name {
  std::string_view name;
  std::optional<double> value;
};

point_name parse_point(std::string_view text) {
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos) return {text, {}};
  const char* const first = text.data() + colon + 1;
  const char* const last = text.data() + text.size();
  double value = 0;
  const auto [end, error] = std::from_chars(first, last, value);
  if (error != std::errc{} || end != last) return {text, {}};
  return {text.substr(0, colon), value};
}

std::string listed(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

// Without `mismatched` the extra forward passes are not made.
objective measured_from(const prospect::any_unpaired& loss, const std::string& text) {
  const auto [name, value] = parse_point(text);
  const auto from = [&](const auto& point, bool mismatched) {
    objective made = unpaired_objective(loss, point);
    made.mismatched = mismatched;
    made.reference_point = text;
    return made;
  };
  if (name == "kl" && !value) return from(from_batch, true);
  if (name == "pooled" && !value) return from(from_run, true);
  if (name == "running" && !value) return from(from_all, false);
  if (name == "ema" && value) return from(moving_average(*value), true);
  if (name == "zero" && !value) return from(fixed(prospect::zero_point()), false);
  if (name == "constant" && value) return from(fixed(prospect::constant_point(*value)), false);
  if (name == "cross_class" && !value) {
    objective made = from(across_classes, false);
    made.balanced = true;
    return made;
  }
  throw std::invalid_argument("there is no reference point '" + text + "'; there are " +
                              listed(known_reference_points()));
}

// ---- by name ------------------------------------------------------------------------------------

// SimpleKTO is KTO measured across classes; it is no formula of its own, so losses.def lacks it.
constexpr std::string_view simple_kto = "simple_kto";

template <class Loss>
constexpr bool is_paired = prospect::paired_loss<Loss, double>;

// TPO's third completion.
template <class Loss>
bool needs_gold(const Loss& loss) {
  const prospect::next_token_term term = next_token_of(loss);
  return term.third && !term.chosen;
}

// Asks the formula: where z has no slope, no mismatched row need be scored.
template <class Loss>
bool reads_reference_point(const Loss& loss) {
  return prospect::differentiate(
             loss,
             prospect::unpaired<double>{
                 .answer = {.policy = -2, .ratio = 0.5, .tokens = 2}, .z = 0.25, .desirable = true})
             .d_z != 0;
}

template <class Loss>
Loss with_parameters(const Loss& defaults, const loss_choice& choice) {
  Loss loss = defaults;
  for (const auto& [name, value] : choice.parameters) {
    if (prospect::set_parameter(loss, name, value)) continue;
    std::vector<std::string> names;
    for (const auto& parameter : Loss::parameters) names.emplace_back(parameter.name);
    throw std::invalid_argument("the loss " + choice.loss + " has no parameter '" + name +
                                "'; it has " + listed(names));
  }
  if (const char* why = prospect::problem(loss)) {
    throw std::invalid_argument("the loss " + choice.loss + ": " + why);
  }
  return loss;
}

template <class Loss>
objective make(const Loss& loss, const loss_choice& choice) {
  if constexpr (is_paired<Loss>) {
    if (needs_gold(loss)) {
      throw std::invalid_argument("the loss " + choice.loss +
                                  " needs a gold completion beside each pair, and no data here has "
                                  "one");
    }
    if (choice.reference_point.empty()) return paired_objective(loss);
  } else if constexpr (prospect::token_loss<Loss, double>) {
    if (choice.reference_point.empty()) return imitation_objective(loss);
  } else {
    if (reads_reference_point(loss)) {
      const std::string usual = std::same_as<Loss, prospect::bco> ? "running" : "kl";
      return measured_from(loss, choice.reference_point.empty() ? usual : choice.reference_point);
    }
    if (choice.reference_point.empty()) return measured_from(loss, "zero");
  }
  throw std::invalid_argument("the loss " + choice.loss + " has no reference point to choose");
}

// Those that the data suffice for: there are no targets in it, and no samples of the policy with
// the advantages that policy gradients want.
template <class Visitor>
void for_each_offered_loss(const Visitor& visit) {
  prospect::for_each_loss([&]<class Loss>(const Loss& loss) {
    if constexpr (prospect::unpaired_loss<Loss>) {
      if (!prospect::reads_target<double>(loss)) visit(loss);
    } else if constexpr (is_paired<Loss> || std::same_as<Loss, prospect::sft>) {
      visit(loss);
    }
  });
}

}  // namespace

std::optional<std::size_t> mismatched_row(std::size_t i, std::size_t rows) {
  const std::int64_t other =
      prospect::mismatched_row(static_cast<std::int64_t>(i), static_cast<std::int64_t>(rows));
  if (other < 0) return {};
  return static_cast<std::size_t>(other);
}

objective next_token_objective() {
  const auto evaluate = [](const scored_batch& batch, point_memory&, std::span<double> d) {
    double log_prob = 0, tokens = 0;
    for (const double p : batch.policy) log_prob += p;
    for (const std::int32_t n : batch.tokens) tokens += n;
    for (double& coefficient : d) coefficient = -1 / tokens;
    step_record record;
    record.loss = -log_prob / tokens;
    return record;
  };
  return {.evaluate = evaluate};
}

objective preference_objective(const loss_choice& choice) {
  if (choice.loss == simple_kto) {
    if (!choice.reference_point.empty()) {
      throw std::invalid_argument("the loss simple_kto has no reference point to choose");
    }
    return measured_from(with_parameters(prospect::kto{}, choice), "cross_class");
  }
  std::optional<objective> made;
  for_each_offered_loss([&](const auto& loss) {
    if (loss.name == choice.loss) made = make(with_parameters(loss, choice), choice);
  });
  if (made) return *made;
  std::vector<std::string> names;
  for (const loss_description& loss : known_losses()) names.push_back(loss.name);
  throw std::invalid_argument("there is no loss '" + choice.loss + "'; there are " + listed(names));
}

std::vector<loss_description> known_losses() {
  std::vector<loss_description> losses;
  const auto add = [&losses](std::string_view name, const auto& loss) {
    using loss_type = std::remove_cvref_t<decltype(loss)>;
    loss_description one{std::string{name}, is_paired<loss_type>, {}};
    for (const auto& p : loss_type::parameters) one.parameters.emplace_back(p.name, loss.*p.member);
    losses.push_back(one);
  };
  for_each_offered_loss([&](const auto& loss) {
    if constexpr (is_paired<std::remove_cvref_t<decltype(loss)>>) {
      if (needs_gold(loss)) return;
    }
    add(loss.name, loss);
  });
  add(simple_kto, prospect::kto{});
  return losses;
}

std::vector<std::string> known_reference_points() {
  return {"kl", "pooled", "running", "ema:DECAY", "zero", "constant:NATS", "cross_class"};
}

weight_advice advise_weights(std::size_t n_desirable, std::size_t n_undesirable) {
  const auto n_d = static_cast<double>(n_desirable), n_u = static_cast<double>(n_undesirable);
  const auto wide = prospect::propose_class_weights(n_d, n_u, prospect::weight_bound::three_halves);
  const auto narrow =
      prospect::propose_class_weights(n_d, n_u, prospect::weight_bound::four_thirds);
  // The upper end of the narrower interval is what the paper ran, and lies inside both intervals.
  const prospect::class_weights taken = narrow.balanced() ? prospect::class_weights{} : narrow.high;
  const auto written = [](const prospect::class_weights& w) {
    std::ostringstream out;
    out << w.desirable << " : " << w.undesirable;
    return out.str();
  };
  return {taken.desirable, taken.undesirable,
          "Class weights from " + std::to_string(n_desirable) + " desirable and " +
              std::to_string(n_undesirable) + " undesirable rows (desirable : undesirable): from " +
              written(narrow.low) + " to " + written(narrow.high) + " by the bound 4/3, to " +
              written(wide.high) + " by the bound 3/2; taken: " + written(taken) + "."};
}

}  // namespace align
