// Tensors as rows and matrices: strides, types, devices, and the name in every refusal.
#include "adapters/torch/tensors.hpp"

#include <prospect/adapters/torch/views.hpp>
#include <prospect/cpu/tokens.hpp>

#include <atomic>

using namespace testing::torch_tensors;
using testing::refusal;
using testing::refuses;

TEST_CASE("a row of a tensor is a view, whatever its stride") {
  const Tensor t = at::arange(24, at::kFloat).view({4, 6});
  const auto across = on_torch::row<const float>(t[2]);
  CHECK(across.size() == 6);
  CHECK(across.data() == t.data_ptr<float>() + 12);
  const auto down = on_torch::row<float>(t.select(1, 5));
  CHECK(down.size() == 4);
  CHECK(down.stride() == 6);
  CHECK(down[3] == 23);
  const auto repeated = on_torch::row<const float>(t[0][1].expand({5}));
  CHECK(repeated.stride() == 0);
  CHECK(repeated[4] == 1);
  CHECK(on_torch::row<const float>(t.narrow(0, 0, 1).select(1, 2)).stride() == 1);
}

TEST_CASE("a matrix of a tensor keeps its pitch, and its rows lie side by side") {
  const Tensor t = at::arange(40, at::kDouble).view({5, 8});
  const auto part = on_torch::matrix<const double>(t.narrow(1, 1, 6));
  CHECK(part.rows == 5);
  CHECK(part.columns == 6);
  CHECK(part.pitch == 8);
  CHECK(part.row(4)[5] == 38);
  CHECK(on_torch::matrix<double>(t.narrow(0, 3, 1)).pitch == 8);
  CHECK(refuses("logits has rows that are not contiguous",
                [&] { on_torch::matrix<double>(t.t(), "logits"); }));
  CHECK(refuses("logits has a pitch smaller than its columns", [&] {
    on_torch::matrix<double>(t.narrow(0, 0, 1).expand({3, 8}), "logits");
  }));
}

TEST_CASE("every storage type is known, and no other") {
  for (const auto type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16}) {
    const Tensor t = at::tensor({1.5F, -2.0F}).to(type);
    CHECK(on_torch::any_input(t).get<double>(1) == -2);
    on_torch::any_output(t).put(0, 3.25);
    CHECK(t[0].item<double>() == 3.25);
    const double first =
        on_torch::with_storage(t, "t", [&]<class S>(std::type_identity<S>) -> double {
          return prospect::load(on_torch::row<const S>(t)[0]);
        });
    CHECK(first == 3.25);
  }
  CHECK(on_torch::any_input(Tensor{}).empty());
  CHECK(refusal([] { on_torch::any_input(at::zeros({2}, at::kInt), "weight"); }) ==
        "prospect: weight is of type Int, Float, Double, Half or BFloat16 is needed");
  CHECK(refusal([] { on_torch::row<const float>(at::zeros({2}, at::kDouble), "policy"); }) ==
        "prospect: policy is of type Double, Float is needed");
}

TEST_CASE("indices are int32 or int64, masks what a mask may be") {
  CHECK(on_torch::indices(at::arange(3, at::kInt))[2] == 2);
  CHECK(on_torch::indices(at::arange(6, at::kLong).view({3, 2}).select(1, 1))[2] == 5);
  CHECK(on_torch::indices(Tensor{}).empty());
  CHECK(refusal([] { on_torch::indices(at::zeros({2}, at::kFloat), "targets"); }) ==
        "prospect: targets is of type Float, Int or Long is needed");
  for (const auto type : {at::kBool, at::kByte, at::kInt, at::kFloat}) {
    const Tensor t = at::tensor({0, 1}).to(type);
    CHECK(!on_torch::mask(t)[0]);
    CHECK(on_torch::mask(t)[1]);
  }
  CHECK(refuses("completion_mask is of type Double",
                [] { on_torch::mask(at::zeros({2}, at::kDouble), "completion_mask"); }));
}

TEST_CASE("what is no strided tensor on that device is refused by its name") {
  const Tensor meta = at::empty({3}, at::TensorOptions{}.device(at::kMeta).dtype(at::kFloat));
  CHECK(refusal([&] { on_torch::row<const float>(meta, "policy"); }) ==
        "prospect: policy is on meta, cpu is needed");
  CHECK(refuses("policy is on cpu, cuda:1 is needed", [] {
    on_torch::row<const float>(at::zeros({3}), "policy", at::Device{at::kCUDA, 1});
  }));
  CHECK(refuses("policy has 2 dimensions, 1 are needed", [] {
    on_torch::any_input(at::zeros({3, 1}), "policy");
  }));
  CHECK(refuses("policy is not defined", [] { on_torch::row<const float>(Tensor{}, "policy"); }));
  CHECK(refuses("policy is not a strided tensor",
                [] { on_torch::row<const float>(at::zeros({3}).to_sparse(), "policy"); }));
}

TEST_CASE("torch's threads run every piece once, give the same bits, and let exceptions through") {
  std::vector<std::atomic<int>> seen(1000);
  on_torch::torch_executor::run(1000, [&](std::int64_t i) { ++seen[static_cast<std::size_t>(i)]; });
  int once = 0;
  for (const auto& count : seen) once += count == 1 ? 1 : 0;
  CHECK(once == 1000);

  CHECK(refuses("piece 3", [] {
    on_torch::torch_executor::run(7, [](std::int64_t i) {
      if (i == 3) throw std::invalid_argument("piece 3");
    });
  }));

  seed(11);
  const Tensor logits = at::randn({64, 20000});
  const Tensor targets = at::randint(0, 20000, {64}, at::kLong);
  const Tensor ours = at::empty({64}), theirs = at::empty({64});
  prospect::serial_executor alone;
  on_torch::torch_executor shared;
  prospect::cpu::token_log_probs<float>(on_torch::matrix<const float>(logits),
                                        on_torch::indices(targets),
                                        {.log_prob = on_torch::row<float>(ours)}, {}, alone);
  prospect::cpu::token_log_probs<float>(on_torch::matrix<const float>(logits),
                                        on_torch::indices(targets),
                                        {.log_prob = on_torch::row<float>(theirs)}, {}, shared);
  CHECK(at::equal(ours, theirs));
}
