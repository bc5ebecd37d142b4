// See retold.hpp.
#include "data/retold.hpp"

#include <string>
#include <utility>

namespace align {
namespace {

// A model that follows instructions is given one.
constexpr std::string_view instruction = "Finish this one-sentence film review: ";

class reteller {
 public:
  reteller(const codec& from, const codec& to) : from_(from), to_(to) {}

  std::vector<token> prompt(const std::vector<token>& words) const {
    return to_.prompt(
        std::vector<message>{{"user", std::string{instruction} + from_.decode(words)}});
  }

  std::vector<token> completion(const std::vector<token>& words) const {
    std::vector<token> tokens = to_.completion(from_.decode(words));
    tokens.push_back(to_.end);
    return tokens;
  }

  void tell(const split& part, split& to) const {
    for (const row& r : part.rows) to.rows.push_back(operator()(r));
    for (const duel& d : part.duels) {
      to.duels.push_back({.prompt = prompt(d.prompt),
                          .chosen = completion(d.chosen),
                          .rejected = completion(d.rejected)});
    }
  }

  row operator()(const row& r) const {
    return {.prompt = prompt(r.prompt),
            .completion = completion(r.completion),
            .desirable = r.desirable};
  }

 private:
  const codec& from_;
  const codec& to_;
};

}  // namespace

dataset retold(const dataset& told, const codec& text) {
  const reteller tell(told.text, text);
  dataset made;
  made.name = told.name;
  made.text = text;
  made.paired = told.paired;
  made.notes = told.notes;
  made.quotable = told.quotable;
  tell.tell(told.train, made.train);
  tell.tell(told.held_out, made.held_out);
  for (const row& r : told.corpus) made.corpus.push_back(tell(r));
  if (told.true_reward) {
    made.true_reward = [words = told.text, text, reward = told.true_reward](
                           std::span<const token> prompt, std::span<const token> completion) {
      const std::vector<message> asked{{"user", text.decode(prompt)}};
      return reward(words.prompt(asked), words.completion(text.decode(completion)));
    };
  }
  return made;
}

}  // namespace align
