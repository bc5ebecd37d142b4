// The command line: what it accepts, and the sentence for what it does not.
#include "options.hpp"

#include "catch.hpp"
#include "experiment.hpp"
#include "job.hpp"
#include "scratch.hpp"

using namespace align;

namespace {

options parsed(std::vector<const char*> words) { return parse_options(words); }
std::string refusal(std::vector<const char*> words) {
  return complaint([&] { parse_options(words); });
}

}  // namespace

TEST_CASE("options are read in both spellings") {
  const options o = parsed({"--loss", "simple-kto", "--beta=0.5", "--desirable-weight", "auto",
                            "--set", "undesirable_weight=2", "--seeds", "3", "--resume",
                            "--reference-point", "constant:-0.5"});
  CHECK(o.loss == "simple_kto");
  CHECK(o.parameters ==
        std::vector<std::pair<std::string, std::string>>{
            {"beta", "0.5"}, {"desirable_weight", "auto"}, {"undesirable_weight", "2"}});
  CHECK(o.seeds == 3);
  CHECK(o.resume);
  CHECK(o.reference_point == "constant:-0.5");
}

TEST_CASE("every option sets its own member and nothing else") {
  const options o = parsed({"--data",
                            "d",
                            "--drop-desirable",
                            "0.25",
                            "--loss",
                            "dpo",
                            "--epochs",
                            "2.5",
                            "--steps",
                            "11",
                            "--lr",
                            "0.125",
                            "--sft-epochs",
                            "3.5",
                            "--sft-lr",
                            "0.5",
                            "--batch",
                            "12",
                            "--seed",
                            "13",
                            "--seeds",
                            "14",
                            "--threads",
                            "15",
                            "--out",
                            "o",
                            "--json",
                            "j",
                            "--html",
                            "h",
                            "--checkpoint-every",
                            "16",
                            "--model",
                            "m",
                            "--chat-template",
                            "chatml",
                            "--type",
                            "bf16",
                            "--lora",
                            "17",
                            "--lora-alpha",
                            "18",
                            "--micro-batch",
                            "4",
                            "--max-prompt",
                            "19",
                            "--max-completion",
                            "20",
                            "--held-out-rows",
                            "21",
                            "--schedule",
                            "constant",
                            "--warm-up",
                            "0.75",
                            "--weight-decay",
                            "0.0625",
                            "--clip",
                            "2",
                            "--save",
                            "s",
                            "--save-type",
                            "q8_0",
                            "--reference-cache",
                            "off",
                            "--samples",
                            "22",
                            "--sample-tokens",
                            "23"});
  CHECK(o.data == "d");
  CHECK(o.drop_desirable == 0.25);
  CHECK(o.loss == "dpo");
  CHECK(o.epochs == 2.5);
  CHECK(o.steps == 11);
  CHECK(o.learning_rate == 0.125);
  CHECK(o.sft_epochs == 3.5);
  CHECK(o.sft_learning_rate == 0.5);
  CHECK(o.batch == 12);
  CHECK(o.seed == 13);
  CHECK(o.seeds == 14);
  CHECK(o.threads == 15);
  CHECK(o.out == "o");
  CHECK(o.json == "j");
  CHECK(o.html == "h");
  CHECK(o.checkpoint_every == 16);
  CHECK(o.model == "m");
  CHECK(o.chat_template == "chatml");
  CHECK(o.type == "bf16");
  CHECK(o.lora == 17);
  CHECK(o.lora_alpha == 18);
  CHECK(o.micro_batch == 4);
  CHECK(o.max_prompt == 19);
  CHECK(o.max_completion == 20);
  CHECK(o.held_out_rows == 21);
  CHECK(o.schedule == "constant");
  CHECK(o.warm_up == 0.75);
  CHECK(o.weight_decay == 0.0625);
  CHECK(o.clip == 2);
  CHECK(o.save == "s");
  CHECK(o.save_type == "q8_0");
  CHECK(o.reference_cache == "off");
  CHECK(o.samples == 22);
  CHECK(o.sample_tokens == 23);
  CHECK_FALSE(o.resume);
  CHECK_FALSE(o.help);
  CHECK_FALSE(o.check);
  CHECK_FALSE(o.recompute);
  CHECK_FALSE(o.lora_head);
  CHECK(parsed({"--check"}).check);
  CHECK(parsed({"--recompute"}).recompute);
  CHECK(parsed({"--lora-head"}).lora_head);
  CHECK(parsed({"--help"}).help);
  CHECK_FALSE(parsed({"--help"}).resume);
  CHECK_FALSE(parsed({"--resume"}).help);
  const options untouched = parsed({});
  CHECK(untouched.loss == "kto");
  CHECK(untouched.out == "align-out");
  CHECK(untouched.type == "f32");
  CHECK(untouched.schedule == "cosine");
  CHECK(untouched.lora == 0);
}

TEST_CASE("the last of several wins, and values may look like anything") {
  const options o = parsed({"--out", "first", "--beta", "-0.5", "--out=a=b c", "--beta", "2",
                            "--data", "/a folder/mine.jsonl", "--json", "it's"});
  CHECK(o.out == "a=b c");
  CHECK(o.data == "/a folder/mine.jsonl");
  CHECK(o.json == "it's");
  CHECK(o.parameters.back() == std::pair<std::string, std::string>{"beta", "2"});
  CHECK(parsed({"--held_out_rows", "5"}).held_out_rows == 5);
  CHECK(parsed({"--set", "beta=1", "--set", "desirable-weight=2"}).parameters.size() == 2);
}

TEST_CASE("every range ends where the sentence says") {
  const auto ends = [](const char* name, const char* low, const char* high, const char* below,
                       const char* above) {
    CAPTURE(name);
    CHECK(refusal({name, low}).empty());
    CHECK(refusal({name, high}).empty());
    CHECK(
        contains(refusal({name, below}), std::string{name} + ": '" + below + "' is not a number"));
    CHECK(
        contains(refusal({name, above}), std::string{name} + ": '" + above + "' is not a number"));
  };
  ends("--drop-desirable", "0", "0.999", "-0.001", "0.9991");
  ends("--epochs", "0", "1e6", "-0.5", "1000001");
  ends("--steps", "1", "1000000000", "0", "1000000001");
  ends("--lr", "0", "1", "-0.1", "1.01");
  ends("--sft-epochs", "0", "1e6", "-0.5", "1000001");
  ends("--sft-lr", "0", "1", "-0.1", "1.01");
  ends("--batch", "1", "1000000000", "0", "1000000001");
  ends("--seed", "0", "18446744073709551615", "-1", "18446744073709551616");
  ends("--seeds", "1", "1000", "0", "1001");
  ends("--threads", "1", "1024", "0", "1025");
  ends("--checkpoint-every", "1", "1000000000", "0", "1000000001");
  ends("--lora", "1", "65536", "0", "65537");
  ends("--lora-alpha", "0.000001", "1e6", "0", "1000001");
  ends("--micro-batch", "1", "1000000000", "0", "1000000001");
  ends("--max-prompt", "2", "1000000000", "1", "1000000001");
  ends("--max-completion", "1", "1000000000", "0", "1000000001");
  ends("--held-out-rows", "1", "1000000000", "0", "1000000001");
  ends("--warm-up", "0", "1", "-0.1", "1.01");
  ends("--weight-decay", "0", "1", "-0.1", "1.01");
  ends("--clip", "0", "1e9", "-0.1", "1000000001");
  ends("--samples", "1", "1000000000", "0", "1000000001");
  ends("--sample-tokens", "1", "1000000000", "-1", "1000000001");
}

TEST_CASE("every loss and every parameter is an option and in the help") {
  for (const loss_description& loss : known_losses()) {
    CHECK(contains(help_text(), "  " + loss.name));
    for (const auto& [name, value] : loss.parameters) {
      CHECK(parsed({("--" + name).c_str(), "0.5"}).parameters.front().first == name);
    }
  }
}

TEST_CASE("wrong arguments are refused by name") {
  CHECK(contains(refusal({"--nonsense", "1"}), "there is no option '--nonsense'"));
  CHECK(contains(refusal({"file"}), "there is no option 'file'"));
  CHECK(contains(refusal({"--lr"}), "--lr needs a value"));
  CHECK(contains(refusal({"--data", ""}), "--data needs a value"));
  CHECK(contains(refusal({"--json="}), "--json needs a value"));
  CHECK(contains(refusal({"--lr", "fast"}), "--lr: 'fast' is not a number from 0 to 1"));
  CHECK(contains(refusal({"--seeds", "0"}), "--seeds: '0' is not a number from 1"));
  CHECK(contains(refusal({"--seeds", "1.5"}), "--seeds: '1.5'"));
  CHECK(contains(refusal({"--drop-desirable", "nan"}), "--drop-desirable: 'nan'"));
  CHECK(contains(refusal({"--beta", "much"}), "--beta: 'much'"));
  CHECK(contains(refusal({"--set", "beta"}), "NAME=VALUE"));
  CHECK(contains(refusal({"--resume=yes"}), "--resume takes no value"));
  CHECK(contains(refusal({"--lr", "--out", "x"}), "--lr: '--out' is not a number"));
  CHECK(contains(refusal({"--beta"}), "--beta needs a value"));
  CHECK(contains(refusal({"--beta", ""}), "--beta needs a value"));
  CHECK(refusal({"--type", "f64"}) == "--type: 'f64' is none of f32, bf16");
  CHECK(contains(refusal({"--save-type", "q4"}), "is none of f32, f16, bf16, q8_0"));
  CHECK(contains(refusal({"--schedule", "linear"}), "is none of cosine, constant"));
  for (const char* number : {"nan", "inf", "-inf", "1e999", "0x10", "1 ", " 1", "1,5", ""}) {
    CAPTURE(number);
    CHECK(contains(refusal({"--lr", number}), "--lr"));
    CHECK(contains(refusal({"--beta", number}), "--beta"));
  }
  CHECK(contains(refusal({"--set", "beta=nan"}), "--beta: 'nan' is not a number"));
}

TEST_CASE("a name that was mistyped is answered with the nearest") {
  CHECK(refusal({"--bacth", "1"}) ==
        "there is no option '--bacth'; did you mean --batch? --help lists them");
  CHECK(contains(refusal({"--desirabel-weight=2"}), "did you mean --desirable-weight?"));
  CHECK_FALSE(contains(refusal({"--nonsense"}), "did you mean"));
  CHECK(contains(refusal({"-x"}), "there is no option '-x'"));
}

TEST_CASE("the help lists every option once and the forms of feedback") {
  const std::string help = help_text();
  for (const char* name :
       {"--data PATH", "--model FILE", "--type f32|bf16", "--set NAME=VALUE", "--check", "--resume",
        "--save-type f32|f16|bf16|q8_0", "--seeds N", "(kto)"}) {
    CAPTURE(name);
    CHECK(contains(help, name));
  }
  CHECK(contains(help, R"({"prompt": "...", "completion": "...", "label": true})"));
  CHECK_FALSE(contains(help, "--beta"));  // listed with its losses
}

TEST_CASE("automatic weights come from the counts and respect the weight that is given") {
  const auto chosen = [](std::vector<const char*> words) {
    return choose_loss(parsed(words), 100, 1000).parameters;
  };
  using parameters = std::vector<std::pair<std::string, double>>;
  const auto both = chosen({"--desirable-weight", "auto", "--undesirable-weight", "auto"});
  CHECK_THAT(both[0].second, WithinRel(40.0 / 3, 1e-12));
  CHECK(both[1].second == 1);
  const auto scaled = chosen({"--desirable-weight", "auto", "--undesirable-weight", "0.5"});
  CHECK_THAT(scaled[0].second, WithinRel(20.0 / 3, 1e-12));
  const auto other_way = chosen({"--undesirable-weight", "auto", "--desirable-weight", "2"});
  CHECK_THAT(other_way[0].second, WithinRel(2 * 3 / 40.0, 1e-12));
  CHECK(chosen({"--beta", "0.2"}) == parameters{{"beta", 0.2}});
  CHECK(contains(complaint([&] { chosen({"--beta", "auto"}); }), "not beta"));
}
