#include "server/operators/operator_classes.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <array>

#include "server/operators/dense_operator.h"
#include "server/operators/diagonal_recurrence.h"

namespace ess::operators {
namespace {

// State of the examples: smaller than most lengths, so that the bound by the state is seen.
constexpr int64_t kExampleState = 6;

std::unique_ptr<SequenceOperator> MakeDenseExample(int64_t H, int64_t L, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const at::Tensor scores = at::randn({H, L, L}, generator, at::kDouble) * 3;
  const at::Tensor future = at::ones({L, L}, at::kBool).triu(1);
  const at::Tensor maps = at::softmax(scores.masked_fill(future, -INFINITY), -1);
  return std::make_unique<DenseOperator>(maps, StateSize::Growing());
}

std::unique_ptr<SequenceOperator> MakeDiagonalExample(int64_t H, int64_t L, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const auto normal = [&] { return at::randn({H, L, kExampleState}, generator, at::kDouble); };
  const at::Tensor a = at::sigmoid(normal() * 2 + 2);
  const at::Tensor b = normal();
  const at::Tensor c = normal();
  return std::make_unique<DiagonalRecurrence>(a, b, c);
}

}  // namespace

std::span<const OperatorClass> AllOperatorClasses() {
  static constexpr std::array kAll = {
      OperatorClass{"DenseOperator", MakeDenseExample},
      OperatorClass{"DiagonalRecurrence", MakeDiagonalExample},
  };
  return kAll;
}

}  // namespace ess::operators
