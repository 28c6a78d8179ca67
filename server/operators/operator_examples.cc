#include "server/operators/operator_examples.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

namespace ess::operators {
namespace {

constexpr int64_t kState = 6;
constexpr int64_t kWidth = 5;
constexpr int64_t kSinks = 2;

// Standard normal float64 tensors, one after the other.
class Normal {
 public:
  explicit Normal(uint64_t seed) : generator_(at::detail::createCPUGenerator(seed)) {}
  at::Tensor operator()(at::IntArrayRef shape) { return at::randn(shape, generator_, at::kDouble); }

 private:
  at::Generator generator_;
};

at::Tensor UnitVectors(const at::Tensor& vectors) {
  return vectors / vectors.norm(2, {-1}, /*keepdim=*/true);
}

}  // namespace

OperatorArguments DenseExample(int64_t H, int64_t L, uint64_t seed) {
  Normal normal(seed);
  const at::Tensor future = at::ones({L, L}, at::kBool).triu(1);
  const at::Tensor scores = (normal({H, L, L}) * 3).masked_fill(future, -INFINITY);
  return {.tensors = {{"T", at::softmax(scores, -1)}}};
}

OperatorArguments DiagonalExample(int64_t H, int64_t L, uint64_t seed) {
  Normal normal(seed);
  return {.tensors = {{"a", at::sigmoid(normal({H, L, kState}) * 2 + 2)},
                      {"b", normal({H, L, kState})},
                      {"c", normal({H, L, kState})}}};
}

OperatorArguments DeltaExample(int64_t H, int64_t L, uint64_t seed) {
  Normal normal(seed);
  return {.tensors = {{"alpha", at::sigmoid(normal({H, L}) + 3)},
                      {"beta", at::sigmoid(normal({H, L}))},
                      {"k", UnitVectors(normal({H, L, kState}))},
                      {"c", normal({H, L, kState})}}};
}

OperatorArguments DiagonalPlusRankOneExample(int64_t H, int64_t L, uint64_t seed) {
  Normal normal(seed);
  const at::Tensor removed = UnitVectors(normal({H, L, kState}));
  return {.tensors = {{"w", at::sigmoid(normal({H, L, kState}) + 3)},
                      {"p", -removed},
                      {"q", removed * at::sigmoid(normal({H, L, kState}))},
                      {"k", normal({H, L, kState})},
                      {"c", normal({H, L, kState})}}};
}

OperatorArguments GeneralExample(int64_t H, int64_t L, uint64_t seed) {
  Normal normal(seed);
  // A normal matrix of N states has a norm of about 2 sqrt(N).
  return {.tensors = {{"A", normal({H, L, kState, kState}) * (0.9 / (2 * std::sqrt(kState)))},
                      {"b", normal({H, L, kState})},
                      {"c", normal({H, L, kState})}}};
}

OperatorArguments ConvolutionExample(int64_t H, int64_t L, uint64_t seed) {
  Normal normal(seed);
  return {.tensors = {{"h", normal({H, L}) * at::exp(-0.05 * at::arange(L, at::kDouble))},
                      {"gate_out", normal({H, L})},
                      {"gate_in", normal({H, L})}}};
}

OperatorArguments BandedExample(int64_t H, int64_t L, uint64_t seed) {
  Normal normal(seed);
  return {.tensors = {{"band", normal({H, L, kWidth})}, {"sinks", normal({H, L, kSinks})}}};
}

OperatorArguments SelectiveScanExample(int64_t H, int64_t L, uint64_t seed) {
  Normal normal(seed);
  return {.tensors = {{"delta", at::softplus(normal({H, L}) - 2)},
                      {"A", -at::arange(1, kState + 1, at::kDouble).expand({H, kState})},
                      {"B", normal({H, L, kState})},
                      {"C", normal({H, L, kState})}}};
}

}  // namespace ess::operators
