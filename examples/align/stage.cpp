// See stage.hpp.
#include "stage.hpp"

#include <algorithm>
#include <filesystem>
#include <ostream>

#include "training/checkpoint.hpp"

namespace align {
namespace fs = std::filesystem;
namespace {

// The state that the stage begins with: a saved one where that is wanted, or nothing yet.
training_state first_state(const session& in, const stage& s, language_model& model,
                           bool reuse_finished, const fs::path& path) {
  const auto from_file = [&](const training_state& state) {
    model.renew();
    in.log << s.label << ": step " << state.step << " of " << s.plan.steps << " from "
           << path.string() << '\n';
  };
  const bool exists = fs::exists(path);
  if (exists && in.given.resume) {
    training_state state = load_checkpoint(path, s.settings, model.trained());
    from_file(state);
    return state;
  }
  if (exists && reuse_finished) {
    const aligned_vector<float> before(model.trained().begin(), model.trained().end());
    training_state state = load_checkpoint(path, s.settings, model.trained());
    if (state.step == s.plan.steps) {
      from_file(state);
      return state;
    }
    std::ranges::copy(before, model.trained().begin());
    model.renew();
  }
  if (exists) {
    fs::path kept = path;
    kept += ".previous";
    fs::rename(path, kept);
    in.log << s.label << ": starting again; what there was is kept in " << kept.string()
           << " (--resume would have continued)\n";
  } else if (in.given.resume) {
    in.log << s.label << ": nothing is saved with these settings, so it starts at step 0\n";
  }
  return training_state{model.trained().size()};
}

}  // namespace

training_state run_stage(const session& in, const stage& s, language_model& model,
                         bool reuse_finished) {
  const fs::path path = in.given.out / checkpoint_name(s.name, s.settings);
  training_state state = first_state(in, s, model, reuse_finished, path);
  trainer train(model, s.data, s.goal, s.plan, s.reference, in.on);
  progress shown(s.label, s.plan.steps, in.log);
  const bool was_finished = state.step == s.plan.steps;
  const auto save = [&] { save_checkpoint(path, s.settings, model.trained(), state); };
  const bool finished = train.run(state, in.stop, [&](const training_state& now) {
    shown.update(now.records.back());
    if (now.step % in.given.checkpoint_every == 0) save();
  });
  shown.finish();
  if (!was_finished) save();
  if (!finished) {
    throw interrupted("stopped at step " + std::to_string(state.step) + " of " +
                      std::to_string(s.plan.steps) + " of " + s.label + "; saved in " +
                      path.string());
  }
  return state;
}

}  // namespace align
