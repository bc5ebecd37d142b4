// The C API's list of losses: names, kinds, parameters.
#include "losses.hpp"

#include <prospect/executor.hpp>

namespace pk = prospect::kernels;

namespace {

/// Index of a parameter in a loss's table, which is also its place in loss_content::value.
template <class Loss>
std::size_t parameter_index(const Loss& loss, const char* name) {
  std::string known;
  std::size_t i = 0;
  for (const auto& p : loss.parameters) {
    if (p.name == name) return i;
    known.append(known.empty() ? "" : ", ").append(p.name);
    ++i;
  }
  pk::fail(PROSPECT_UNKNOWN_NAME,
           std::string{loss.name} + " has no parameter \"" + name + "\"; it has " + known);
}

prospect::score_transform score_named(std::string_view name, double alpha) {
  if (name == "reverse_kl") return prospect::reverse_kl;
  if (name == "forward_kl") return prospect::forward_kl;
  if (name == "js_divergence") return prospect::js_divergence;
  if (name == "alpha_divergence") return prospect::alpha_divergence(alpha);
  pk::fail(PROSPECT_UNKNOWN_NAME, "there is no score \"" + std::string{name} +
                                      "\"; there are reverse_kl, forward_kl, js_divergence, "
                                      "alpha_divergence");
}

/// The losses that take scores, in words.
std::string score_takers() {
  std::string known;
  prospect::for_each_loss([&]<class L>(const L& loss) {
    if constexpr (prospect::score_taking_loss<L>) {
      known.append(known.empty() ? "" : ", ").append(loss.name);
    }
  });
  return known;
}

}  // namespace

uint32_t prospect_version(void) {
  return PROSPECT_VERSION_MAJOR * 10000 + PROSPECT_VERSION_MINOR * 100 + PROSPECT_VERSION_PATCH;
}

void prospect_shutdown(void) { prospect::thread_pool::stop_shared(); }

const char* prospect_status_string(prospect_status status) {
  switch (status) {
    case PROSPECT_OK:
      return "ok";
    case PROSPECT_INVALID_ARGUMENT:
      return "invalid argument";
    case PROSPECT_UNKNOWN_NAME:
      return "unknown name";
    case PROSPECT_UNSUPPORTED:
      return "unsupported";
    case PROSPECT_INTERNAL_ERROR:
      return "internal error";
    case PROSPECT_ABSENT:
      return "absent";
    default:
      return status > PROSPECT_CUDA_ERROR && status <= PROSPECT_CUDA_ERROR_LAST ? "CUDA error"
                                                                                : "unknown status";
  }
}

int32_t prospect_loss_count(void) {
  int32_t count = 0;
  prospect::for_each_loss([&](const auto&) { ++count; });
  return count;
}

const char* prospect_loss_name(int32_t index) {
  const char* name = nullptr;
  pk::with_loss(index, [&](const auto& loss) { name = loss.name.data(); });
  return name;
}

prospect_status prospect_loss_init(prospect_loss* loss, const char* name, prospect_error* error) {
  return pk::guard(error, [&] {
    pk::require(loss, "loss");
    pk::require(name, "name");
    std::string known;
    int32_t index = 0;
    bool found = false;
    prospect::for_each_loss([&](const auto& candidate) {
      if (candidate.name == name) {
        found = true;
        pk::loss_content content{.tag = pk::loss_content::this_version,
                                 .id = index,
                                 .alpha = prospect::reverse_kl.alpha,
                                 .jensen_shannon = prospect::reverse_kl.jensen_shannon,
                                 .average = std::int64_t(prospect::detail::average_of(candidate)),
                                 .value = {}};
        std::size_t i = 0;
        for (const auto& p : candidate.parameters) content.value[i++] = candidate.*p.member;
        std::memcpy(loss, &content, sizeof content);
      }
      known.append(known.empty() ? "" : ", ").append(candidate.name);
      ++index;
    });
    if (!found) {
      pk::fail(PROSPECT_UNKNOWN_NAME,
               std::string{"there is no loss \""} + name + "\"; there are " + known);
    }
  });
}

prospect_status prospect_loss_kind(const prospect_loss* loss, prospect_kind* kind,
                                   prospect_error* error) {
  return pk::guard(error, [&] {
    pk::require(kind, "kind");
    pk::with_loss(loss, [&]<class L>(const L&) {
      *kind = prospect::paired_loss<L>     ? PROSPECT_PAIRED_LOSS
              : prospect::unpaired_loss<L> ? PROSPECT_UNPAIRED_LOSS
                                           : PROSPECT_TOKEN_LOSS;
    });
  });
}

const char* prospect_loss_parameter(const prospect_loss* loss, int32_t index) {
  const char* name = nullptr;
  pk::guard(nullptr, [&] {
    pk::with_loss(loss, [&](const auto& l) {
      if (index >= 0 && static_cast<std::size_t>(index) < l.parameters.size()) {
        name = l.parameters[static_cast<std::size_t>(index)].name.data();
      }
    });
  });
  return name;
}

prospect_status prospect_loss_set(prospect_loss* loss, const char* parameter, double value,
                                  prospect_error* error) {
  return pk::guard(error, [&] {
    pk::require(parameter, "parameter");
    pk::with_loss(loss, [&](auto l) {
      const std::size_t i = parameter_index(l, parameter);
      l.*l.parameters[i].member = value;
      if (const char* why = prospect::problem(l)) pk::fail(PROSPECT_INVALID_ARGUMENT, why);
      std::memcpy(
          reinterpret_cast<char*>(loss) + offsetof(pk::loss_content, value) + i * sizeof(double),
          &value, sizeof value);
    });
  });
}

prospect_status prospect_loss_get(const prospect_loss* loss, const char* parameter, double* value,
                                  prospect_error* error) {
  return pk::guard(error, [&] {
    pk::require(parameter, "parameter");
    pk::require(value, "value");
    pk::with_loss(loss, [&](const auto& l) {
      *value = l.*l.parameters[parameter_index(l, parameter)].member;
    });
  });
}

prospect_status prospect_loss_set_score(prospect_loss* loss, const char* score, double alpha,
                                        prospect_error* error) {
  return pk::guard(error, [&] {
    pk::require(score, "score");
    pk::with_loss(loss, [&]<class L>(const L& l) {
      const prospect::score_transform transform = score_named(score, alpha);
      if (const char* why = transform.problem()) pk::fail(PROSPECT_INVALID_ARGUMENT, why);
      if (!prospect::score_taking_loss<L> && !transform.is_identity()) {
        pk::fail(PROSPECT_UNSUPPORTED, std::string{"score: "} + std::string{l.name} +
                                           " is no function of a difference of log-ratios; scores "
                                           "are taken by " +
                                           score_takers());
      }
      pk::loss_content content = pk::content_of(*loss);
      content.alpha = transform.alpha;
      content.jensen_shannon = transform.jensen_shannon;
      std::memcpy(loss, &content, sizeof content);
    });
  });
}

prospect_status prospect_loss_set_averaging(prospect_loss* loss, prospect_averaging averaging,
                                            prospect_error* error) {
  return pk::guard(error, [&] {
    pk::with_loss(loss, [&]<class L>(const L& l) {
      if (!prospect::token_loss<L>) {
        pk::fail(PROSPECT_UNSUPPORTED,
                 std::string{"averaging: "} + std::string{l.name} + " is no loss of tokens");
      }
      if (averaging < PROSPECT_TOKENS || averaging > PROSPECT_SEQUENCE_SUMS) {
        pk::fail(PROSPECT_INVALID_ARGUMENT,
                 "averaging is " + std::to_string(averaging) + ", which is none");
      }
      pk::loss_content content = pk::content_of(*loss);
      content.average = averaging;
      std::memcpy(loss, &content, sizeof content);
    });
  });
}
