// One of several losses of a kind, chosen at run time: one kernel for all of them, and a loss by
// its name.
#pragma once

#include <prospect/losses/losses.hpp>
#include <prospect/losses/parts/next_token.hpp>
#include <prospect/losses/parts/scores.hpp>
#include <prospect/losses/reads.hpp>

#include <algorithm>
#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

namespace detail {

template <class L, class Sample>
concept loss_of = requires(const L& loss, const Sample& sample) { loss(sample); };

/// How a loss of tokens averages; of another kind, whatever.
template <class L>
PROSPECT_HD constexpr averaging average_of(const L& loss) noexcept {
  if constexpr (requires { loss.average; }) {
    return loss.average;
  } else {
    return {};
  }
}

template <class Any>
struct any_scored;

}  // namespace detail

/// A value that is one of the losses L..., of which all are of one kind, and is used as they are.
/// Hyper-parameters are numbers, in the order of the loss's table. Which loss it is, is asked once
/// for every block of examples on the CPU, and on a device, in a branch that is the same for all
/// threads, once for what a thread has of a tile of sequences, or for every token.
template <class... L>
struct any_loss {
  static constexpr bool branch_free = (... && branch_free_loss<L>);
  static constexpr std::size_t most_parameters =
      (std::max)({std::size_t{1}, L::parameters.size()...});

  std::int32_t which = 0;                           ///< position among L...
  averaging average = detail::average_of(first{});  ///< of the loss, where it is of tokens
  double beta = 1;                                  ///< reward_scale of the loss
  next_token_term term{};                           ///< next_token_of the loss
  double parameter[most_parameters] = {};
  score_transform score{};  ///< other than the log-ratio only where the loss takes scores

  any_loss() = default;
  template <class One>
    requires(... || std::same_as<One, L>)
  any_loss(const One& loss)
      : which{position<One>()},
        average{detail::average_of(loss)},
        beta{reward_scale(loss)},
        term{next_token_of(loss)} {
    static_assert(std::is_empty_v<One> || sizeof(One) == One::parameters.size() * sizeof(double));
    if constexpr (!std::is_empty_v<One>) __builtin_memcpy(parameter, &loss, sizeof loss);
  }

  template <class One>
  bool is() const {
    return which == position<One>();
  }
  /// The loss itself, where it is a One.
  template <class One>
  PROSPECT_HD One as() const {
    One loss;
    if constexpr (!std::is_empty_v<One>) __builtin_memcpy(&loss, parameter, sizeof loss);
    return loss;
  }

  /// Calls `visitor(loss)` with the loss itself, and returns what that does.
  template <class Visitor>
  auto visit(const Visitor& visitor) const {
    decltype(visitor(first{})) result{};
    (void)(... || (is<L>() && (result = visitor(as<L>()), true)));
    return result;
  }

  /// The same with the loss as one of scores, where it is one.
  template <class Visitor>
  auto visit_scored(const Visitor& visitor) const {
    if (score.is_identity()) return visit(visitor);
    decltype(visitor(first{})) result{};
    const auto try_one = [&]<class One>(One* /*which*/) {
      if constexpr (score_taking_loss<One>) {
        if (is<One>()) result = visitor(scored<One>{.loss = as<One>(), .score = score});
      }
    };
    (try_one(static_cast<L*>(nullptr)), ...);
    return result;
  }

  /// Itself, for a kernel that is for losses of scores alone.
  auto of_scores() const { return detail::any_scored<any_loss>{*this}; }

  /// Calls `f(loss)` with the loss itself, whatever its score, also on a device.
  template <class F>
  PROSPECT_HD void look_up(const F& f) const {
    std::int32_t i = 0;
    (void)(... || (which == i++ && (f(as<L>()), true)));
  }

  /// Not by way of `visit`, whose visitors are the host's: nvcc would have them on the device.
  template <class Sample>
    requires(... && detail::loss_of<L, Sample>)
  PROSPECT_HD auto operator()(const Sample& sample) const {
    if constexpr ((... || score_taking_loss<L>)) {
      // One switch for both, since a device would have it twice.
      using gap_of = decltype(score.gap(sample, false));
      using T = decltype(sample.chosen.ratio);
      const bool plain = score.is_identity();
      const gap_of gap = plain ? gap_of{} : score.gap(sample, of_means());
      const auto result = itself(plain ? sample : gap.template as_pair<T>(sample.margin));
      return plain ? result : gap.outward(result, sample);
    } else {
      return itself(sample);
    }
  }

  /// What a token adds to the sum over its sequence: nothing, where the loss reads none.
  template <class Sample>
    requires((... && detail::loss_of<L, Sample>) && (... || sums_tokens<L>))
  PROSPECT_HD auto contribution(const Sample& sample) const {
    decltype(first{}(sample)) result{};
    std::int32_t i = 0;
    (void)(... || (which == i++ && (result = contribution_of<L>(sample), true)));
    return result;
  }

  PROSPECT_HD next_token_term next_token() const { return term; }
  std::string_view name() const {
    return visit([](const auto& loss) { return loss.name; });
  }
  const char* problem() const {
    return visit([this]<class One>(const One& loss) -> const char* {
      if (score.is_identity()) return loss.problem();
      if constexpr (score_taking_loss<One>) {
        return scored<One>{.loss = loss, .score = score}.problem();
      } else {
        return "score: this loss is no function of a difference of log-ratios, and takes none";
      }
    });
  }

 private:
  using first = std::tuple_element_t<0, std::tuple<L...>>;

  template <class Sample>
  PROSPECT_HD auto itself(const Sample& sample) const {
    decltype(first{}(sample)) result{};
    std::int32_t i = 0;
    (void)(... || (which == i++ && (result = as<L>()(sample), true)));
    return result;
  }
  PROSPECT_HD bool of_means() const {
    std::int32_t i = 0;
    return (... || (which == i++ && takes_means<L>()));
  }
  template <class One>
  PROSPECT_HD static constexpr bool takes_means() {
    if constexpr (score_taking_loss<One>) {
      return One::takes_scores == score_difference::of_means;
    } else {
      return false;
    }
  }

  template <class One, class Sample>
  PROSPECT_HD auto contribution_of(const Sample& sample) const {
    if constexpr (sums_tokens<One>) {
      return as<One>().contribution(sample);
    } else {
      return decltype(first{}(sample)){};
    }
  }

  template <class One>
  static constexpr std::int32_t position() {
    std::int32_t i = 0;
    (void)(... || (std::same_as<One, L> || (++i, false)));
    return i;
  }
};

namespace detail {

/// One of several losses that is one of scores, for a kernel that is for those alone.
template <class... L>
struct any_scored<any_loss<L...>> {
  static constexpr std::size_t most_parameters = any_loss<L...>::most_parameters;

  any_loss<L...> loss;

  /// Calls `f(scored loss)`.
  template <class F>
  PROSPECT_HD void look_up(const F& f) const {
    std::int32_t i = 0;
    (void)(... || (loss.which == i++ && look_at<L>(f)));
  }
  PROSPECT_HD double reward_scale() const { return loss.beta; }
  PROSPECT_HD next_token_term next_token() const { return loss.next_token(); }

 private:
  template <class One, class F>
  PROSPECT_HD bool look_at([[maybe_unused]] const F& f) const {
    if constexpr (score_taking_loss<One>) {
      f(scored<One>{.loss = loss.template as<One>(), .score = loss.score});
    }
    return true;
  }
};

template <class Tuple>
struct any_of;
template <class... L>
struct any_of<std::tuple<L...>> {
  using type = any_loss<L...>;
};

}  // namespace detail

/// Any built-in loss of its kind.
using any_paired = detail::any_of<detail::paired_losses>::type;
using any_unpaired = detail::any_of<detail::unpaired_losses>::type;
using any_token = detail::any_of<detail::token_losses>::type;

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
