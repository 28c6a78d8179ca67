// Which rule a weight starts by; what the rules draw is compared in tests/parity.
#include "server/models/random_weights.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "server/base/available_memory.h"
#include "tests/support/status_matchers.h"

namespace ess::models {
namespace {

using absl::StatusCode;
using ess::testing::IsOk;
using ess::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

at::Tensor Taken(RandomWeights& weights, const std::string& name, at::IntArrayRef shape) {
  auto taken = weights.Take(name, shape);
  EXPECT_THAT(taken, IsOk());
  return *taken;
}

TEST(RandomWeightsTest, TheFirstRuleThatMatchesDecides) {
  RandomWeights weights({.rules = {{"layers.*.special.weight", Constant(2)},
                                   {"*.special.weight", Constant(3)},
                                   {"*.A_log", LogOfCount()}}},
                        /*seed=*/1, "cpu");

  EXPECT_TRUE(Taken(weights, "layers.0.mixer.special.weight", {2, 2}).eq(2).all().item<bool>());
  EXPECT_TRUE(Taken(weights, "special.special.weight", {2, 2}).eq(3).all().item<bool>());
  EXPECT_TRUE(at::allclose(Taken(weights, "layers.1.A_log", {2, 3}).exp(),
                           at::tensor({1.f, 2.f, 3.f}).expand({2, 3})));
}

TEST(RandomWeightsTest, WithoutARuleNamesAndAxesDecide) {
  RandomWeights weights({.standard_deviation = 0.5, .norm_weight = 4}, /*seed=*/1, "cpu");

  EXPECT_TRUE(Taken(weights, "proj.bias", {3}).eq(0).all().item<bool>());
  EXPECT_TRUE(Taken(weights, "norm.weight", {3}).eq(4).all().item<bool>());
  EXPECT_NEAR(Taken(weights, "proj.weight", {100, 100}).std().item<double>(), 0.5, 0.02);
  EXPECT_THAT(weights.Take("layers.0.decay", {3}),
              StatusIs(StatusCode::kInternal, HasSubstr("'layers.0.decay'")));
  EXPECT_EQ(weights.Totals().parameters, 10006);
  EXPECT_EQ(weights.Totals().bytes, 4 * 10006);
}

TEST(RandomWeightsTest, OrderAndThreadsChangeNothing) {
  RandomWeights first({}, /*seed=*/7, "cpu"), second({}, /*seed=*/7, "cpu");
  const at::Tensor a = Taken(first, "a.weight", {300, 301});
  const at::Tensor b = Taken(first, "b.weight", {5, 7});
  const int threads = at::get_num_threads();
  at::set_num_threads(threads == 1 ? 2 : 1);

  EXPECT_TRUE(at::equal(Taken(second, "b.weight", {5, 7}), b));
  EXPECT_TRUE(at::equal(Taken(second, "a.weight", {300, 301}), a));
  at::set_num_threads(threads);
}

TEST(RandomWeightsTest, OrthogonalWeightsAreTheSameForAnyNumberOfThreads) {
  const InitialWeights initial{.rules = {{"*", Orthogonal(0.5)}}};
  const int threads = at::get_num_threads();
  for (const auto& [rows, columns] : {std::pair{300, 200}, {150, 400}, {250, 250}}) {
    at::set_num_threads(1);
    RandomWeights alone(initial, /*seed=*/7, "cpu");
    const at::Tensor weight = Taken(alone, "a.weight", {rows, columns});
    at::set_num_threads(4);
    RandomWeights together(initial, /*seed=*/7, "cpu");

    EXPECT_TRUE(at::equal(Taken(together, "a.weight", {rows, columns}), weight));
    const at::Tensor wide = (rows < columns ? weight : weight.t()).to(at::kDouble);
    const at::Tensor identity = at::eye(wide.size(0), wide.options());
    EXPECT_TRUE(at::allclose(at::mm(wide, wide.t()), identity.mul(0.25), 1e-5, 1e-6));
  }
  at::set_num_threads(threads);
}

TEST(RandomWeightsTest, WhatMakesATensorHasToFitToo) {
  const InitialWeights initial{.rules = {{"*.orthogonal", Orthogonal(1)}}};
  RandomWeights weights(initial, /*seed=*/1, "cpu");
  const int64_t rows = AvailableMemoryBytes() / (16 * 1024);

  // A quarter of the memory that is left, and twice as much again to factor it.
  EXPECT_THAT(weights.Take("a.orthogonal", {rows, 1024}),
              StatusIs(StatusCode::kResourceExhausted, HasSubstr("'a.orthogonal'")));
}

TEST(RandomWeightsTest, AModelDoesNotStartWithWhatIsAbsent) {
  const RandomWeights weights({.absent = {"lm_head.weight"}}, /*seed=*/1, "cpu");

  EXPECT_FALSE(weights.Has("lm_head.weight"));
  EXPECT_TRUE(weights.Has("embed_tokens.weight"));
}

TEST(RandomWeightsTest, ATensorThatDoesNotFitIsRefused) {
  RandomWeights weights({}, /*seed=*/1, "cpu");

  EXPECT_THAT(weights.Take("a.weight", {int64_t{1} << 24, int64_t{1} << 24}),
              StatusIs(StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("'a.weight' [16777216, 16777216]"), HasSubstr("memory"))));
  // 2^64 bytes.
  EXPECT_THAT(weights.Take("a.weight", {int64_t{1} << 24, int64_t{1} << 24, int64_t{1} << 14}),
              StatusIs(StatusCode::kResourceExhausted, HasSubstr("memory")));
}

}  // namespace
}  // namespace ess::models
