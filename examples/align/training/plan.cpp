// See plan.hpp.
#include "training/plan.hpp"

#include <algorithm>
#include <set>
#include <span>
#include <stdexcept>

#include "random_source.hpp"

namespace align {
namespace {

void shuffle_for(std::vector<std::size_t>& units, std::uint64_t seed, int epoch, int stream) {
  // The generator mixes its seed, so neighbouring seeds give unrelated orders.
  random_source mixed{random_source{seed}.next() + static_cast<std::uint64_t>(2 * epoch + stream)};
  shuffle(std::span{units}, mixed);
}

}  // namespace

std::vector<std::vector<std::size_t>> batches_of_epoch(const feedback& data, int batch,
                                                       bool balanced, std::uint64_t seed,
                                                       int epoch) {
  // One queue of units, or one for each thumb; every batch takes its share from each.
  std::vector<std::vector<std::size_t>> queues(balanced ? 2 : 1);
  for (std::size_t i = 0; i < data.units(); ++i) {
    queues[balanced && !data.rows[i].desirable ? 1 : 0].push_back(i);
  }
  if (static_cast<std::size_t>(batch) < queues.size()) {
    throw std::invalid_argument("--batch must be at least 2 where every batch holds both thumbs");
  }
  std::size_t share = static_cast<std::size_t>(batch) / queues.size();
  std::size_t count = data.units();
  for (std::size_t q = 0; q < queues.size(); ++q) {
    shuffle_for(queues[q], seed, epoch, static_cast<int>(q));
    share = std::min(share, queues[q].size());
  }
  if (share == 0) throw std::invalid_argument("there is too little feedback to fill one batch");
  for (const auto& queue : queues) count = std::min(count, queue.size() / share);

  std::vector<std::vector<std::size_t>> batches(count);
  for (std::size_t b = 0; b < count; ++b) {
    for (const auto& queue : queues) {
      const auto first = queue.begin() + static_cast<std::ptrdiff_t>(b * share);
      batches[b].insert(batches[b].end(), first, first + static_cast<std::ptrdiff_t>(share));
    }
  }
  return batches;
}

batch_order::batch_order(const feedback& data, const schedule& plan, bool balanced)
    : data_(data),
      batch_(plan.batch),
      seed_(plan.seed),
      balanced_(balanced),
      batches_(batches_of_epoch(data, plan.batch, balanced, plan.seed, 0)) {}

std::vector<std::size_t> batch_order::rows_of_step(int step) {
  const auto length = static_cast<int>(batches_.size());  // the same in every epoch
  if (step / length != epoch_) {
    epoch_ = step / length;
    batches_ = batches_of_epoch(data_, batch_, balanced_, seed_, epoch_);
  }
  std::vector<std::size_t> rows = batches_[static_cast<std::size_t>(step % length)];
  if (data_.paired) {
    const std::size_t pairs = rows.size();
    for (std::size_t i = 0; i < pairs; ++i) rows.push_back(rows[i] + data_.units());
  }
  return rows;
}

std::vector<std::pair<std::size_t, std::size_t>> parts_of(std::size_t sequences,
                                                          const schedule& plan) {
  const std::size_t together = plan.together > 0 ? static_cast<std::size_t>(plan.together)
                                                 : std::max<std::size_t>(sequences, 1);
  const std::size_t count = (sequences + together - 1) / together;
  std::vector<std::pair<std::size_t, std::size_t>> parts;
  for (std::size_t i = 0; i < count; ++i) {
    parts.emplace_back(i * sequences / count, (i + 1) * sequences / count);
  }
  return parts;
}

std::vector<prompt_completion> measured_by(const feedback& data, const schedule& plan,
                                           const objective& goal) {
  std::vector<prompt_completion> all;
  std::set<prompt_completion> known;
  const auto add = [&](const prompt_completion& one) {
    if (known.insert(one).second) all.push_back(one);
  };
  batch_order order(data, plan, goal.balanced);
  for (int step = 0; step < plan.steps; ++step) {
    const std::vector<std::size_t> rows = order.rows_of_step(step);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      add({rows[i], rows[i]});
      const auto other = goal.mismatched ? mismatched_row(i, rows.size()) : std::nullopt;
      if (other) add({rows[i], rows[*other]});
    }
  }
  return all;
}

}  // namespace align
